"""What all paper packages share: data, networks, training loops, the store of runs, plots and reports."""

__version__ = "0.2.0"

"""Shared foundation of the paper packages: data, networks, training loops, run store, plots and reports."""

__version__ = "0.1.0"

"""The figures of the paper: presets, the Runs behind each figure, and what draws it. Nothing here loads torch."""

"""The figures of BBN. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure; `figures`, `tables` and `matrix` draw.
"""

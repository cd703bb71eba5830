"""The figures of LUCIR. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure; `figures` draws.
"""

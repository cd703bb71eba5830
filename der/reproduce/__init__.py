"""The figures of DER. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure; `figures`, `sweeps` and `inside` draw.
"""

"""The figures of feature space augmentation. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure; `figures`, `pictures` and `readers` draw.
"""

"""The figures of feature space augmentation. No module here imports torch.

`presets` holds data and schedules, and `catalogue` lists the Runs behind each figure. `figures`, `pictures` and
`readers` draw them.
"""

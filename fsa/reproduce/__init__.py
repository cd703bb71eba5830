"""The figures of feature space augmentation. No module here imports torch.

`presets` holds data and schedules. `catalogue` lists the Runs behind each figure. `figures`, `pictures` and `readers`
draw the figures.
"""

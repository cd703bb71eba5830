"""The figures of BBN. No module here imports torch.

`presets` holds data and schedules. `catalogue` lists the Runs behind each figure. `figures`, `tables` and `matrix` draw
the figures.
"""

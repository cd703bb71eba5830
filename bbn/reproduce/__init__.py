"""The figures of BBN. No module here imports torch.

`presets` holds data and schedules, and `catalogue` lists the Runs behind each figure. `figures`, `tables` and `matrix`
draw them.
"""

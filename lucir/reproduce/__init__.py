"""The figures of LUCIR. No module here imports torch.

`presets` holds data and schedules, `catalogue` lists the Runs behind each figure, and `figures` draws them.
"""

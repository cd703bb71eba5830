"""The figures of feature adaptation. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure. `figures` draws those of the
paper, `questions` those that its readers ask for.
"""

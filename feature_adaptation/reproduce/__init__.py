"""The figures of feature adaptation. Nothing in this package loads torch.

`presets` has the data and schedules. `catalogue` lists the Runs behind each figure. `figures` draws those of the paper,
`questions` those that its readers ask for. `parts` has what both use.
"""

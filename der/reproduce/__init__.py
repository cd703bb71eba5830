"""The figures of DER. Nothing in this package loads torch.

`presets` has the data and schedules. `catalogue` lists the Runs behind each figure. `figures`, `sweeps`, `inside` and
`arms` draw the figures.
"""

"""The figures of the class-balanced loss. Nothing in this package loads torch.

`presets` has the data and schedules. `catalogue` lists the Runs behind each figure. `figures` and `tables` draw what
runs measured, `analytic` what follows from formulas.
"""

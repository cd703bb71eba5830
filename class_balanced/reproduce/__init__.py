"""The figures of the class-balanced loss. Nothing here loads torch.

`presets` has the data and schedules, `catalogue` the Runs behind each figure. `figures` and `tables` draw what
runs measured, `analytic` what follows from formulas.
"""

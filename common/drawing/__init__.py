"""Turns Results into figures, reports and pages. No module here loads torch.

`figures` describes a figure as data. `curves` makes the drawings that papers share. `plots` turns a drawing into
files; `heat` and `pictures` do so for special panels, and `looks` chooses the colours. `report` writes the figures and
the published numbers into one report.
"""

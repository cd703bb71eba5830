"""From Results to pages. Nothing here loads torch.

`figures` says what a figure is, as data. `curves` makes the drawings that papers share. `plots` turns a drawing into
files, with `heat` and `pictures` for special panels and the colours of `looks`. `report` sets figures beside numbers.
"""

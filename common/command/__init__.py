"""The commands `reproduce` and `train`. No module here loads torch before a run is trained.

`cli` reads the command line, `plan` finds the figures and their Runs, and `queue` trains the missing Runs through
`launcher`. `parts` and `painter` draw figures as runs end. `messages` prints the progress. Each paper builds its
presets from `settings`.
"""

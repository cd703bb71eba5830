"""The commands. Nothing here loads torch before it trains.

`cli` reads the words, `plan` finds the figures and their Runs, and `queue` trains what is missing through `launcher`.
`parts` and `painter` draw as runs end; `messages` says what happens. Papers make their presets of `settings`.
"""

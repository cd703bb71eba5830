"""A method of one's own beside a paper's: the least that it takes. See the README, "Your own method"."""

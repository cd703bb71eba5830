"""Which figures there are, and on what."""

"""The commands: what to train, where and when, and what is printed. Nothing loads torch before it trains."""

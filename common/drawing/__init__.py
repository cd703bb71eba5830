"""From Results to pages: figures as data, what draws them, and the report. Nothing here loads torch."""

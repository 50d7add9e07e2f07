"""Run directories: their files, and how these are written and read."""

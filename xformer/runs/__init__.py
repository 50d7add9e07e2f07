"""One run directory: what stands in it, how it is written, and opened again."""

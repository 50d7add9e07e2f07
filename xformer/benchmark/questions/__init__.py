"""The benchmarks: one module per question, with `measure` and `plot`."""

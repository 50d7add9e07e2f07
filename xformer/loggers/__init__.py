"""Loggers: a metrics table in every run directory, and optionally Weights & Biases or TensorBoard."""

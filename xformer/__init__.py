"""Config-driven Transformer experiments: change one thing, hold the rest equal, believe the result."""

__version__ = "0.1.0"

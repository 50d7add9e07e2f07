"""Train one model, or a sweep with -m."""

from xformer.cli import train_as_configured as main

__all__ = ["main"]

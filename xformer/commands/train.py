"""Train one model, or a sweep with -m; resume=DIR continues what is there."""

from xformer.cli import train_as_typed as main

__all__ = ["main"]

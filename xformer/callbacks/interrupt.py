"""Saves where training was when somebody stopped it."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveOnInterrupt(Callback):
    """Writes `interrupted.ckpt` on Ctrl-C and SIGTERM, for resume=true; Lightning would stop without a trace.

    Args:
        directory: where checkpoints go.
    """

    def __init__(self, *, directory: str) -> None:
        self.directory = Path(directory)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, unless it is a failure, whose state nobody wants to continue from."""
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.world_size == 1:
            trainer.save_checkpoint(self.directory / "interrupted.ckpt")

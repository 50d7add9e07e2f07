"""Training that starts with the short items."""

from lightning.pytorch import Callback, LightningModule, Trainer

from xformer.data.base import DataModule
from xformer.data.curriculum import Pace
from xformer.errors import ConfigError


class Curriculum(Callback):
    """Trains on the shortest share of the items, which grows linearly to all of them.

    The order stays a function of seed, epoch and step: workers may fetch ahead, and a resumed run continues where it
    was.

    Args:
        steps: optimiser steps after which all items are trained on.
        initial: the share of the items at the first step.

    Raises:
        ConfigError: no steps, or a share that is none.
    """

    def __init__(self, *, steps: int, initial: float) -> None:
        if steps < 1:
            raise ConfigError(f"callbacks.curriculum.steps={steps} is no time to grow in: use at least 1.")
        if not 0 < initial <= 1:
            raise ConfigError(
                f"callbacks.curriculum.initial={initial} is no share of the items: use more than 0 and at most 1."
            )
        self.steps, self.initial = steps, initial

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the data their pace, before they make the training batches."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, DataModule):
            data.pace = Pace(self.initial, self.steps * trainer.accumulate_grad_batches)

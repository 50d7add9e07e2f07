"""Curriculum learning: training starts with short examples."""

from typing import Annotated

from annotated_types import Ge, Interval
from lightning.pytorch import Callback, LightningModule, Trainer

from xformer.data.base import DataModule
from xformer.data.sampling.curriculum import Pace


class Curriculum(Callback):
    """Trains on the shortest share of the examples, which grows linearly to all of them.

    The order stays a function of seed, epoch and step: workers may fetch ahead, and a resumed run continues where it
    was.

    Args:
        steps: optimiser steps after which training uses all examples.
        initial: the share of the examples at the first step.
    """

    def __init__(self, *, steps: Annotated[int, Ge(1)], initial: Annotated[float, Interval(gt=0, le=1)]) -> None:
        self.steps, self.initial = steps, initial

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the curriculum's pace on the data, before the training batches are made."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, DataModule):
            data.pace = Pace(self.initial, self.steps * trainer.accumulate_grad_batches)

"""Stops training as soon as the loss is NaN or infinite, before a checkpoint is spoilt."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from xformer.errors import DivergedError


class FiniteLoss(Callback):
    """Raises when the training loss is NaN or infinite.

    Left alone, such a run trains to its end, reports success and saves checkpoints of NaN. On a CPU every batch is
    checked. On an accelerator reading a loss waits for the device, so losses are checked `every` batches and before
    each checkpoint; the step that the message names is exact all the same. Before a checkpoint the parameters are
    checked too, because a finite loss with infinite gradients spoils them one step before a loss shows it.
    """

    def __init__(self, *, every: Annotated[int, Ge(1)]):
        self.every = every
        self._pending: list[tuple[int, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the state of an earlier fit."""
        self._pending.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect the loss, and check when it is cheap or due.

        Raises:
            DivergedError: A loss since the last check is not finite.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        self._pending.append((trainer.global_step, loss.detach()))
        if loss.device.type == "cpu" or len(self._pending) >= self.every:
            self._check()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the remaining losses.

        Raises:
            DivergedError: A loss since the last check is not finite.
        """
        self._check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save a state with a non-finite loss or parameters; Lightning calls this before it writes.

        Raises:
            DivergedError: A loss since the last check, or a parameter, is not finite.
        """
        self._check()
        with torch.no_grad():
            parameters = (parameter for parameter in pl_module.parameters() if parameter.numel())
            largest = [
                torch.linalg.vector_norm(parameter, ord=math.inf).to(pl_module.device) for parameter in parameters
            ]
        if largest and not bool(torch.stack([value.float() for value in largest]).isfinite().all()):
            raise DivergedError(_advice(f"Parameters are not finite after step {trainer.global_step}"))

    def _check(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack([loss for _, loss in pending]).tolist()
        for (step, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                raise DivergedError(_advice(f"The training loss is {loss} at step {step}"))


def _advice(what: str) -> str:
    return (
        f"{what}: try a lower optimizer.lr, trainer.gradient_clip_val=1.0 or trainer.precision=32;"
        " the last checkpoint was saved before this."
    )

"""Keeps what training was measured at last in each checkpoint, for a run that is killed after its last step."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class TrainMetrics(Callback):
    """The training metrics of the last step that was logged, over all resumptions; every run has this callback.

    Attributes:
        values: by name, `train/loss`.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the last step's."""
        self._update(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store them."""
        self._update(trainer)
        checkpoint["train_metrics"] = dict(self.values)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from them; a checkpoint of an earlier version has none."""
        self.values = dict(checkpoint.get("train_metrics", {}))

    def _update(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        self.values |= {name: value.item() for name, value in metrics.items() if name.startswith("train/")}

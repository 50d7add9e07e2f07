"""Keeps the last training metrics in each checkpoint, for a run that is killed after its last step."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class TrainMetrics(Callback):
    """Records the training metrics of the last logged step, across resumptions; every run has this callback.

    Attributes:
        values: by name, `train/loss`.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the metrics of the last step."""
        self._update(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the metrics in the checkpoint."""
        self._update(trainer)
        checkpoint["train_metrics"] = dict(self.values)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics; a checkpoint of an earlier version has none."""
        self.values = dict(checkpoint.get("train_metrics", {}))

    def _update(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        self.values |= {name: value.item() for name, value in metrics.items() if name.startswith("train/")}

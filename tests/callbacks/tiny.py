"""The smallest run that has dropout, a schedule, validation, and batches in an order that depends on the epoch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset
from torchmetrics import MetricCollection

from xformer.data.batch import ClassificationBatch
from xformer.data.sampling.loader import outlive_signals
from xformer.tasks.base import Outcome, Task


class Shuffled(Sampler[list[int]]):
    def __init__(self, size: int, batch: int):
        self.size, self.batch, self.epoch, self.start = size, batch, 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.size // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(100 + self.epoch))
        yield from order.view(-1, self.batch)[self.start :].tolist()


class Tiny(Task):
    def __init__(self, *, spoil_at: int | None = None):
        LightningModule.__init__(self)  # a task's needs data's spec, for metrics that are not measured here
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.spoil_at = spoil_at
        self.seen: list[Tensor] = []

    def step(self, batch: ClassificationBatch) -> Outcome:
        logits = self.net(batch.tokens.float())
        return Outcome(logits.square().mean(), logits, batch.labels)

    def build_metrics(self, spec: Any, prefix: str) -> MetricCollection:
        return MetricCollection({}, prefix=prefix)

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        self.seen.append(batch.tokens)
        loss = self.step(batch).loss
        self.log("train/loss", loss, prog_bar=True)
        return loss * float("nan") if self.global_step == self.spoil_at else loss

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        self.log("val/loss", self.step(batch).loss, batch_size=4)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        # Asks the trainer for its loaders before the checkpoint is restored, as real schedules do.
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (total + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def collate(rows: list[tuple[Tensor]]) -> ClassificationBatch:
    return ClassificationBatch(torch.stack([row[0] for row in rows]), None, torch.zeros(len(rows), dtype=torch.long))


def loaders(*, batches: int = 5, workers: int = 0) -> dict[str, DataLoader[Any]]:
    train = TensorDataset(torch.arange(batches * 4 * 4).view(-1, 4) % 7)
    held_out = TensorDataset(torch.arange(32).view(8, 4) % 5)
    common: dict[str, Any] = {"collate_fn": collate, "num_workers": workers, "worker_init_fn": outlive_signals}
    return {
        "train_dataloaders": DataLoader(
            train, batch_sampler=Shuffled(len(train), 4), generator=torch.Generator(), **common
        ),
        "val_dataloaders": DataLoader(held_out, batch_size=4, generator=torch.Generator(), **common),
    }


def trainer(directory: Path, *callbacks: Callback, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
    }
    return Trainer(
        accelerator="cpu",
        default_root_dir=directory,
        callbacks=list(callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        **defaults | options,
    )

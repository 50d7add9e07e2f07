import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from tests.callbacks.tiny import Tiny, loaders, trainer
from tests.core.fake_cuda import FakeCuda
from xformer.callbacks import throughput
from xformer.callbacks.throughput import Throughput
from xformer.core import devices
from xformer.data.batch import ClassificationBatch
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.metrics_table import read_metrics

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers", "ignore:Be aware that when using"
)

PER_BATCH = 16


def test_tokens_and_speed_reach_the_table(tmp_path: Path) -> None:
    callback = Throughput(warmup=2)
    run = trainer(tmp_path, callback, logger=MetricsCSV(tmp_path))
    run.fit(Tiny(), **loaders())
    rows = read_metrics(tmp_path)
    losses = [row for row in rows if row.metric == "train/loss"]
    assert [row.tokens for row in losses] == [PER_BATCH * (step + 1) for step in range(10)]
    assert [row.tokens for row in rows if row.metric == "val/loss"] == [5 * PER_BATCH, 10 * PER_BATCH]
    speeds = [row for row in rows if row.metric == "tokens_per_second"]
    assert next(row.step for row in speeds) == 2
    assert all(row.value > 0 for row in speeds)
    assert callback.tokens_seen == 10 * PER_BATCH
    assert callback.tokens_per_second is not None


class Slow(Tiny):
    """Takes 20 ms a batch, far longer for the first, and far longer to validate."""

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        time.sleep(0.2 if self.global_step == 0 else 0.02)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        time.sleep(0.05)


def test_speed_leaves_out_warm_up_and_validation(tmp_path: Path) -> None:
    callback = Throughput(warmup=1)
    trainer(tmp_path, callback, val_check_interval=1, max_epochs=1, num_sanity_val_steps=0).fit(Slow(), **loaders())
    assert callback.tokens_per_second is not None
    assert PER_BATCH / 0.04 < callback.tokens_per_second <= PER_BATCH / 0.02


class Behind(FakeCuda):
    """A device whose work takes a time that passes when somebody waits for it."""

    clock, given = 0.0, 0.0

    def synchronize(self, device: torch.device | int | None = None) -> None:
        self.clock, self.given = self.clock + self.given, 0.0


def test_speed_is_that_of_the_device_and_not_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of two seconds that the host only asks for, and validations of a hundred."""
    device = Behind(initialised=True)

    class Asking(Tiny):
        def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
            device.given += 2.0 if self.global_step else 50.0
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
            device.given += 100.0

    monkeypatch.setattr(devices, "cuda", device)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: device.clock))
    callback = Throughput(warmup=1)
    trainer(tmp_path, callback, val_check_interval=2, max_epochs=1, num_sanity_val_steps=0).fit(Asking(), **loaders())
    assert callback.tokens_per_second == PER_BATCH / 2.0


def test_nothing_was_timed_in_the_warm_up(tmp_path: Path) -> None:
    callback = Throughput(warmup=50)
    trainer(tmp_path, callback).fit(Tiny(), **loaders())
    assert callback.tokens_per_second is None
    assert callback.tokens_seen == 10 * PER_BATCH


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    save = ModelCheckpoint(dirpath=tmp_path / "c", filename="{step}", save_top_k=-1)
    run = trainer(tmp_path, Throughput(warmup=0), save, enable_checkpointing=True, log_every_n_steps=3)
    run.fit(Tiny(), **loaders())
    callback = Throughput(warmup=0)
    run = trainer(tmp_path, callback, max_epochs=3)
    run.fit(Tiny(), **loaders(), ckpt_path=tmp_path / "c" / "step=10.ckpt", weights_only=True)
    assert callback.tokens_seen == 15 * PER_BATCH


def test_its_state_is_found_whatever_the_class_is_called() -> None:
    class Renamed(Throughput):
        """Another name for the same."""

    assert Renamed(warmup=0).state_key == Throughput(warmup=0).state_key == "Throughput"

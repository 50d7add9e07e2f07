"""The callback with real data: short sequences first, and exact when it is resumed with workers that fetch ahead."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.callbacks.tiny import trainer
from xformer.callbacks.curriculum import Curriculum
from xformer.callbacks.resume import ExactResume
from xformer.data.batch import Seq2SeqBatch
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.datasets.transduction import Transduction

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []

    def training_step(self, batch: Seq2SeqBatch, index: int) -> torch.Tensor:
        self.seen.append(batch.source_tokens.tolist())
        return self.weight * 0

    def validation_step(self, batch: Seq2SeqBatch, index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(directory: Path, *callbacks: Callback, fresh: bool = False, workers: int = 0, **options: Any) -> Any:
    data = Transduction(
        DataContext(0, directory), kind="copy", symbols=9, min_length=1, max_length=12, test_lengths=[],
        generation=FreshGenerationConfig(train_size=48, val_size=8, test_size=8, fresh=fresh, seed=0),
        loader=LoaderConfig(batch_size=8, num_workers=workers),
    )  # fmt: skip
    model, resume = Recorder(), options.pop("resume", None)
    run = trainer(directory, ExactResume(), *callbacks, max_epochs=3, limit_val_batches=0, **options)
    run.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    return model.seen


def longest(seen: Any) -> list[int]:
    return [len(batch[0]) for batch in seen]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_starts_short_and_ends_as_without(tmp_path: Path, accumulate: int) -> None:
    plain = fit(tmp_path)
    steps = 12 // accumulate
    paced = fit(tmp_path, Curriculum(steps=steps, initial=0.1), accumulate_grad_batches=accumulate)
    assert longest(paced)[0] < min(longest(plain))
    assert paced[12:] == plain[12:]
    assert paced[11] != plain[11]


@pytest.mark.parametrize("limit", [{"limit_train_batches": 2}, {"limit_train_batches": 0.4}, {"overfit_batches": 2}])
def test_the_pace_counts_only_batches_that_are_trained_on(limit: dict[str, Any], tmp_path: Path) -> None:
    everything = [row for batch in fit(tmp_path)[:6] for row in batch]
    lengths = sorted(sum(token != 0 for token in row) for row in everything)
    found = longest(fit(tmp_path, Curriculum(steps=12, initial=0.1), **limit))
    assert len(found) == 6
    for step, length in enumerate(found):
        assert length <= lengths[int((0.1 + 0.9 * step / 12) * len(lengths)) - 1]


@pytest.mark.parametrize(("fresh", "workers"), [(False, 2), (True, 0)])
def test_a_resumed_run_meets_the_same_batches(tmp_path: Path, fresh: bool, workers: int) -> None:
    options: dict[str, Any] = {"fresh": fresh, "workers": workers}
    save = ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole = fit(tmp_path, Curriculum(steps=15, initial=0.1), save, enable_checkpointing=True, **options)
    assert len(whole) == 18
    for step in (4, 6, 9):
        resumed = fit(tmp_path, Curriculum(steps=15, initial=0.1), resume=tmp_path / f"step={step}.ckpt", **options)
        assert resumed == whole[step:]

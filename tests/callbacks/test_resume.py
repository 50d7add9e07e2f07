from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.tiny import Tiny, collate, loaders, trainer
from xformer.callbacks.resume import ExactResume
from xformer.data.batch import ClassificationBatch
from xformer.data.sampling.loader import Loader
from xformer.data.sampling.order import Permutation
from xformer.data.sampling.sampler import TrainingBatches
from xformer.errors import RunError
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.metrics_table import read_metrics

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)


def fit(directory: Path, *, seed: int, resume: Path | None = None, **options: Any) -> Tiny:
    """Train; with `seed` different in a resumed run, so that nothing is right by having been seeded."""
    seed_everything(seed, verbose=False)
    model = Tiny()
    workers = options.pop("workers", 0)
    save = options.pop("save", None)
    run = trainer(directory, ExactResume(), *([save] if save else []), **options)
    run.fit(model, **loaders(workers=workers), ckpt_path=resume, weights_only=True if resume else None)
    return model


def assert_same(model: Tiny, expected: Tiny) -> None:
    for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other)


def every_step(directory: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=directory, filename="{step}", save_top_k=-1, **options)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("validate_every", [2, 5])
def test_resumed_run_is_bit_identical_from_every_step(tmp_path: Path, accumulate: int, validate_every: int) -> None:
    options = {
        "accumulate_grad_batches": accumulate,
        "val_check_interval": validate_every,
        "enable_checkpointing": True,
    }
    save = every_step(tmp_path / "steps", every_n_train_steps=1)
    whole = fit(tmp_path, seed=0, save=save, **options)
    saved = sorted((tmp_path / "steps").glob("*.ckpt"))
    assert len(saved) == (10 if accumulate == 1 else 6)
    for checkpoint in saved:
        resumed = fit(tmp_path, seed=1, resume=checkpoint, **{**options, "enable_checkpointing": False})
        assert_same(resumed, whole)
        rest = len(resumed.seen)
        assert all(torch.equal(a, b) for a, b in zip(resumed.seen, whole.seen[len(whole.seen) - rest :], strict=True))


@pytest.mark.parametrize("validate_every", [2, 5])
def test_resumed_run_is_bit_identical_from_validation(tmp_path: Path, validate_every: int) -> None:
    options = {"val_check_interval": validate_every, "enable_checkpointing": True}
    whole = fit(tmp_path, seed=0, save=every_step(tmp_path / "val", save_on_train_epoch_end=False), **options)
    saved = sorted((tmp_path / "val").glob("*.ckpt"))
    assert len(saved) == (4 if validate_every == 2 else 2)
    for checkpoint in saved:
        assert_same(fit(tmp_path, seed=1, resume=checkpoint, val_check_interval=validate_every), whole)


def test_resumed_run_is_bit_identical_from_the_epochs_end(tmp_path: Path) -> None:
    save = every_step(tmp_path / "epoch", save_on_train_epoch_end=True)
    whole = fit(tmp_path, seed=0, save=save, enable_checkpointing=True)
    resumed = fit(tmp_path, seed=1, resume=tmp_path / "epoch" / "step=5.ckpt")
    assert len(resumed.seen) == 5
    assert_same(resumed, whole)


def test_resume_with_workers_that_fetched_ahead(tmp_path: Path) -> None:
    save = every_step(tmp_path / "steps", every_n_train_steps=3)
    whole = fit(tmp_path, seed=0, save=save, enable_checkpointing=True)
    resumed = fit(tmp_path, seed=1, resume=tmp_path / "steps" / "step=3.ckpt", workers=1)
    assert len(resumed.seen) == 7
    assert_same(resumed, whole)


class Batched:
    def __len__(self) -> int:
        return 20

    def __getitems__(self, indices: list[int]) -> ClassificationBatch:
        return collate([(torch.full((4,), index) % 7,) for index in indices])


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_with_the_projects_own_loader(tmp_path: Path, workers: int) -> None:
    def run(seed: int, resume: Path | None, *callbacks: Callback, **options: Any) -> Tiny:
        seed_everything(seed, verbose=False)
        model, data = Tiny(), loaders()
        batches = TrainingBatches(Permutation(20), 4, seed=3)
        data["train_dataloaders"] = Loader(Batched(), batches, seed=3, num_workers=workers)
        fitter = trainer(tmp_path, ExactResume(), *callbacks, **options)
        fitter.fit(model, **data, ckpt_path=resume, weights_only=True)
        return model

    save = every_step(tmp_path / "steps", every_n_train_steps=1)
    whole = run(0, None, save, enable_checkpointing=True)
    for step in (3, 5, 7):
        resumed = run(1, tmp_path / "steps" / f"step={step}.ckpt")
        assert len(resumed.seen) == 10 - step
        assert_same(resumed, whole)


def test_epochs_have_different_orders(tmp_path: Path) -> None:
    model = fit(tmp_path, seed=0)
    assert not torch.equal(torch.cat(model.seen[:5]), torch.cat(model.seen[5:]))


def test_resume_refuses_a_sampler_that_cannot_start_inside_an_epoch(tmp_path: Path) -> None:
    fit(tmp_path, seed=0, save=every_step(tmp_path, every_n_train_steps=3), enable_checkpointing=True)
    plain = DataLoader(TensorDataset(torch.ones(20, 4)), batch_size=4, collate_fn=collate)
    data = loaders() | {"train_dataloaders": plain}
    with pytest.raises(RunError, match="no epoch and start"):
        trainer(tmp_path, ExactResume()).fit(Tiny(), **data, ckpt_path=tmp_path / "step=3.ckpt")


def test_resume_refuses_a_checkpoint_without_a_position(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(Tiny(), **loaders())
    run.save_checkpoint(tmp_path / "bare.ckpt")
    with pytest.raises(RunError, match="does not say where"):
        trainer(tmp_path, ExactResume()).fit(Tiny(), **loaders(), ckpt_path=tmp_path / "bare.ckpt")


def test_resumed_table_has_each_observation_once(tmp_path: Path) -> None:
    def run(directory: Path, resume: Path | None = None) -> None:
        save = every_step(tmp_path / "steps", every_n_train_steps=3)
        table = MetricsCSV(directory)
        table.start_at(0 if resume is None else 3)
        fit(tmp_path, seed=0, save=save, resume=resume, enable_checkpointing=True, logger=table)

    run(tmp_path / "whole")
    run(tmp_path / "killed")
    run(tmp_path / "killed", resume=tmp_path / "steps" / "step=3.ckpt")
    whole, resumed = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "killed")
    assert [(row.step, row.metric, row.value) for row in resumed] == [
        (row.step, row.metric, row.value) for row in whole
    ]
    lines = (tmp_path / "killed" / "metrics.csv").read_text().splitlines()
    assert len(lines) == len(resumed) + 1
    assert all(a.seconds <= b.seconds for a, b in pairwise(resumed))

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from tests.callbacks.tiny import Tiny, loaders, trainer
from xformer.callbacks.finite_loss import FiniteLoss
from xformer.errors import RunError

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def last(directory: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=directory, filename="last", every_n_train_steps=1, enable_version_counter=False)


def test_the_run_stops_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    model = Tiny(spoil_at=3)
    run = trainer(tmp_path, last(tmp_path), FiniteLoss(every=100), enable_checkpointing=True)
    with pytest.raises(RunError, match=r"loss is nan at step 4: try a lower optimizer\.lr"):
        run.fit(model, **loaders())
    assert len(model.seen) == 4
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


def test_without_it_the_run_trains_on_to_its_end(tmp_path: Path) -> None:
    model = Tiny(spoil_at=3)
    trainer(tmp_path).fit(model, **loaders())
    assert len(model.seen) == 10


def test_spoilt_weights_are_not_saved_although_the_loss_was_finite(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 3:
                pl_module.net[0].weight.data[0, 0] = float("inf")

    run = trainer(tmp_path, Spoil(), FiniteLoss(every=1), last(tmp_path), enable_checkpointing=True)
    with pytest.raises(RunError, match="Parameters are not finite after step 3"):
        run.fit(Tiny(), **loaders())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


class Elsewhere(Tensor):
    """A loss that says it is on an accelerator, as far as a test without one can go."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("meta")


class Steps(Trainer):
    global_step = 0  # type: ignore[assignment]

    def __init__(self) -> None:
        pass


def test_on_an_accelerator_losses_are_read_now_and_then_and_the_step_is_exact() -> None:
    callback, steps, model = FiniteLoss(every=4), Steps(), Tiny()

    def batch_end(step: int, loss: float) -> None:
        steps.global_step = step
        output = {"loss": torch.tensor(loss).as_subclass(Elsewhere)}
        callback.on_train_batch_end(steps, model, output, None, 0)

    for step in range(1, 5):
        batch_end(step, 1.0)
    batch_end(5, 1.0)
    batch_end(6, float("inf"))
    with pytest.raises(RunError, match="inf at step 6"):
        callback.on_save_checkpoint(steps, model, {})
    batch_end(7, 1.0)
    batch_end(8, float("nan"))
    batch_end(9, 1.0)
    with pytest.raises(RunError, match="nan at step 8"):
        batch_end(10, 1.0)

"""The callbacks as conf/callbacks/default.yaml puts them together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, seed_everything
from omegaconf import OmegaConf

from tests.callbacks.tiny import Tiny, loaders, trainer
from xformer.data.batch import ClassificationBatch
from xformer.errors import RunError

DEFAULT = Path(__file__).parents[1] / "conf" / "callbacks" / "default.yaml"

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers", "ignore:Checkpoint directory"
)


class GetsWorse(Tiny):
    """Best at the first validation."""

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        self.log("val/loss", float(self.global_step), batch_size=4)


def callbacks(directory: Path) -> list[Callback]:
    config = OmegaConf.create({"monitor": {"name": "val/loss", "mode": "min"}, "callbacks": OmegaConf.load(DEFAULT)})
    for name in ("checkpoint", "last_checkpoint"):
        config.callbacks[name].dirpath = str(directory / "checkpoints")
    return [instantiate(node) for node in config.callbacks.values()]


def fit(directory: Path, model: Tiny, resume: Path | None = None, **options: Any) -> Tiny:
    run = trainer(directory, *callbacks(directory), enable_checkpointing=True, enable_progress_bar=True, **options)
    run.fit(model, **loaders(), ckpt_path=resume, weights_only=True)
    return model


def step_of(path: Path) -> int:
    step: int = torch.load(path, weights_only=True)["global_step"]
    return step


def test_best_and_last_are_two_files_and_a_requeued_run_keeps_two(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    whole = fit(tmp_path / "whole", GetsWorse(), val_check_interval=2)
    folder = tmp_path / "whole" / "checkpoints"
    assert {path.name: step_of(path) for path in folder.iterdir()} == {"step-2.ckpt": 2, "last.ckpt": 9}

    seed_everything(0, verbose=False)
    with pytest.raises(RunError, match="at step 8"):
        fit(tmp_path / "cut", GetsWorse(spoil_at=7), val_check_interval=2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert step_of(last) == 7
    seed_everything(1, verbose=False)
    resumed = fit(tmp_path / "cut", GetsWorse(), resume=last, val_check_interval=2)
    assert {path.name: step_of(path) for path in last.parent.iterdir()} == {"step-2.ckpt": 2, "last.ckpt": 9}
    for parameter, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, other)

"""What training was measured at last is in each checkpoint, whoever goes on from it."""

from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from tests.callbacks.tiny import Tiny, loaders, trainer
from xformer.callbacks.train_metrics import TrainMetrics


class Logs(Tiny):
    """Logs a number that is its step, under a name of training and under another."""

    def on_train_batch_end(self, *about: object) -> None:
        self.log("train/step", float(self.global_step))
        self.log("other/step", float(self.global_step))


def test_a_run_that_was_cut_after_its_last_step_has_its_metrics(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    first = TrainMetrics()
    run = trainer(tmp_path, first, max_steps=4)
    run.fit(Logs(), **loaders())
    file = tmp_path / "cut.ckpt"
    run.save_checkpoint(file)
    assert first.values["train/step"] == 4
    assert all(name.startswith("train/") for name in first.values)
    assert torch.load(file, weights_only=True)["train_metrics"] == first.values

    second = TrainMetrics()
    trainer(tmp_path, second, max_steps=4).fit(Logs(), **loaders(), ckpt_path=file, weights_only=True)
    assert second.values == first.values  # though it trained no step of its own


def test_a_checkpoint_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    metrics = TrainMetrics()
    metrics.on_load_checkpoint(trainer(tmp_path), Tiny(), {})
    assert metrics.values == {}

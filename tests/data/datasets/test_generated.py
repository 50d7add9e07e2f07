"""Generated items: the same whoever asks, new where new ones are wanted, and never those of another split."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.testing import assert_close

from xformer.callbacks.resume import ExactResume

NAMES = ["recall", "retrieval"]
SMALL = {
    "recall": {"train_size": 64, "batch_size": 16},
    "retrieval": {"train_size": 64, "batch_size": 16, "length": 24},
    "transduction": {"train_size": 64, "val_size": 50, "test_size": 50, "batch_size": 16, "symbols": 8},
}
LIGHTNINGS_OWN = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec:FutureWarning"
)


def rows(batch):
    tokens = batch.source_tokens if hasattr(batch, "source_tokens") else batch.tokens
    return [tuple(row) for row in tokens.tolist()]


@pytest.mark.parametrize("name", NAMES)
def test_an_item_does_not_depend_on_its_batch_or_on_the_run(ready, name):
    items = ready(name, **SMALL[name]).splits["train"]
    others = ready(name, seed=3, **SMALL[name] | {"batch_size": 8, "train_size": 100}).splits["train"]
    for batch, expected in zip(others.__getitems__([5, 9]), items.__getitems__([9, 1, 5]), strict=True):
        if expected is not None:
            assert_close(batch, expected[[2, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_generation_seeds_have_items_of_their_own(ready, name):
    data, others = ready(name, **SMALL[name]), ready(name, generation={"seed": 1}, **SMALL[name])
    found = [rows(split.__getitems__(range(40))) for module in (data, others) for split in module.splits.values()]
    assert len(set().union(*found)) == 6 * 40
    prints = {ready(name, **SMALL[name] | options).fingerprint for options in ({}, {"seed": 4}, {"batch_size": 8})}
    assert prints == {data.fingerprint}
    changed = ({"generation": {"seed": 1}}, {"fresh": True}, {"length": 28})
    assert len({data.fingerprint} | {ready(name, **SMALL[name] | options).fingerprint for options in changed}) == 4


@pytest.mark.parametrize("name", SMALL)
def test_fresh_items_are_new_in_every_epoch_and_follow_the_seed(ready, name):
    def epochs(seed, workers=0):
        loader = ready(name, seed=seed, fresh=True, num_workers=workers, **SMALL[name]).train_dataloader()
        seen = []
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            seen.append([row for batch in loader for row in rows(batch)])
        return seen

    first, second = epochs(0)
    assert len(set(first) | set(second)) == 2 * 64
    assert not {*first, *second} & {row for epoch in epochs(1) for row in epoch}
    assert epochs(0, workers=2) == [first, second]


class Recorder(LightningModule):
    """Remembers the rows it saw; dies after a step, leaving a checkpoint."""

    def __init__(self, checkpoint=None, die_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.checkpoint, self.die_at, self.seen = checkpoint, die_at, []

    def training_step(self, batch, index):
        self.seen.append(rows(batch))
        return self.weight * 0

    def validation_step(self, batch, index):
        pass

    def on_train_batch_end(self, outputs, batch, index):
        if len(self.seen) == self.die_at:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@LIGHTNINGS_OWN
@pytest.mark.parametrize(("name", "stop", "workers"), [("recall", 3, 0), ("retrieval", 4, 2), ("transduction", 6, 0)])
def test_a_killed_run_meets_the_fresh_items_it_would_have_met(ready, tmp_path, name, stop, workers):
    def fit(model, checkpoint=None):
        data = ready(name, fresh=True, num_workers=workers, **SMALL[name])
        Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0, callbacks=[ExactResume()],
        ).fit(model, data, ckpt_path=checkpoint)  # fmt: skip
        return model.seen

    whole = fit(Recorder())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(Recorder(tmp_path / "killed.ckpt", stop))
    assert len(whole) == 8
    assert fit(Recorder(), tmp_path / "killed.ckpt") == whole[stop:]

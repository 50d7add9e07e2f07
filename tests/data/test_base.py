import inspect
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from lightning.pytorch import LightningModule, Trainer

from tests.data.conftest import committed
from xformer.callbacks.resume import ExactResume
from xformer.data.base import DataModule
from xformer.data.batch import (
    ClassificationBatch,
    ImageBatch,
    LanguageModelingBatch,
    PairClassificationBatch,
    Seq2SeqBatch,
)
from xformer.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted([*(CONF / "data").glob("*.yaml"), *(CONF / "tokenizer").glob("*.yaml")])
SMALL = {
    "listops": {"train_size": 90, "val_size": 25, "test_size": 33, "batch_size": 8},
    "digits": {"batch_size": 64},
    "text": {"block": 512, "batch_size": 64},
    "text_classification": {"batch_size": 64},
    "recall": {"train_size": 64, "val_size": 33, "batch_size": 8},
    "retrieval": {"train_size": 64, "val_size": 33, "batch_size": 8, "fresh": True},
}
LIGHTNINGS_OWN = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_yaml_names_exactly_the_keyword_only_parameters(path):
    config = committed(path)
    kind = get_class(config._target_)
    parameters = inspect.signature(kind).parameters.values()
    assert set(config) - {"_target_", "_partial_", "defaults"} == {
        p.name for p in parameters if p.kind is p.KEYWORD_ONLY
    }
    assert config.get("_partial_", False) == issubclass(kind, DataModule)
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and is_dataclass(
            parameter.annotation
        ):  # a block of options; what has a default may be left out
            keys = {field.name: field.default is MISSING for field in fields(parameter.annotation)}
            assert {key for key, needed in keys.items() if needed} <= set(config[parameter.name]) <= set(keys)
    if issubclass(kind, DataModule):
        batches = ClassificationBatch, ImageBatch, LanguageModelingBatch, PairClassificationBatch, Seq2SeqBatch
        assert kind.yields in batches
        assert isinstance(kind.pads, bool)


@pytest.mark.parametrize("name", SMALL)
def test_the_global_generators_do_not_matter_and_are_left_alone(ready, name):
    def tokens(workers):
        module = ready(name, **SMALL[name], num_workers=workers)
        return [batch.tokens for batch in module.train_dataloader()]

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    # Python's own generator is left out: the type checker of these tests draws from it.
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = tokens(0)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.testing.assert_close(before[0], after[0])
    assert before[1] == after[1]
    torch.manual_seed(2)
    second = tokens(0 if name == "digits" else 2)
    torch.testing.assert_close(first, second)


def test_starting_workers_leaves_the_global_generator_alone(ready):
    module = ready("digits", num_workers=1, batch_size=512)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert len(list(module.train_dataloader())) == 2
    assert len(list(module.val_dataloader())) == 1
    torch.testing.assert_close(torch.get_rng_state(), before)


def on(device: str) -> SimpleNamespace:
    return SimpleNamespace(root_device=torch.device(device))


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("mps", False), ("cuda", True)])
def test_memory_is_pinned_where_training_is_on_cuda_and_nowhere_else(ready, device, pinned):
    """Whatever else the machine has: pages that cannot be moved are of use to CUDA alone."""
    module = ready("digits", **SMALL["digits"])
    module.trainer = SimpleNamespace(world_size=1, global_rank=0, overfit_batches=0, strategy=on(device))
    assert module.train_dataloader().pin_memory is pinned
    assert module.val_dataloader().pin_memory is pinned


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_moved_whole_and_not_waited_for(name, ready, monkeypatch):
    module = ready(name, **SMALL[name])
    batch = next(iter(module.val_dataloader()))
    waited = []
    to = torch.Tensor.to

    def spy(tensor, device, *, non_blocking=False):
        waited.append(not non_blocking)
        return to(tensor, device)

    monkeypatch.setattr(torch.Tensor, "to", spy)
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert type(moved) is type(batch)
    assert not any(waited)
    for before, after in zip(batch, moved, strict=True):
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta"
            assert after.shape == before.shape
        else:
            assert after is before


@pytest.mark.parametrize("name", SMALL)
def test_the_batch_size_is_global(ready, name):
    module = ready(name, **SMALL[name])
    whole = [batch.labels for batch in module.train_dataloader()]
    shares = []
    for rank in range(2):

        class Place:
            world_size, global_rank, overfit_batches, strategy = 2, rank, 0, on("cpu")

        module.trainer = Place()
        shares.append([batch.labels for batch in module.train_dataloader()])
        assert len(module.val_dataloader()) == -(-len(module.splits["val"]) // module.loader.batch_size)
    for batch, first, second in zip(whole, *shares, strict=True):
        torch.testing.assert_close(torch.cat([first, second]), batch)
        assert len(first) == len(second) == module.loader.batch_size // 2


def test_an_indivisible_batch_size_is_refused(ready):
    module = ready("digits", batch_size=33)

    class Place:
        world_size, global_rank, overfit_batches, strategy = 2, 0, 0, on("cpu")

    module.trainer = Place()
    with pytest.raises(ConfigError, match=r"data\.loader\.batch_size=33 .* multiple of the 2 in use"):
        module.train_dataloader()
    with pytest.raises(ConfigError, match=r"data\.loader\.batch_size=33"):
        module.val_dataloader()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_all_stages_share_one_loading(ready, name):
    module = ready(name, **SMALL[name])
    before = module.splits
    module.setup("test")
    assert module.splits is before


def test_data_sources_are_imported_only_when_needed():
    code = (
        # Lightning itself imports transformers, and what that imports, wherever it is installed.
        "import sys, lightning.pytorch, torchmetrics.classification\n"
        "before = set(sys.modules)\n"
        "import xformer.data.datasets.listops, xformer.data.datasets.digits, xformer.data.datasets.text\n"
        "import xformer.tokenizers.bpe\n"
        "import xformer.data.datasets.images, xformer.data.datasets.pathfinder, xformer.tasks.image_classification\n"
        "heavy = {'datasets', 'tokenizers', 'sklearn', 'huggingface_hub', 'kornia'} & (set(sys.modules) - before)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Recorder(LightningModule):
    """Remembers, per step, which batch it saw; writes a checkpoint in a hook after `stop` batches and dies."""

    def __init__(self, stop: int | None = None, checkpoint: Path | None = None, hook: str = "") -> None:
        super().__init__()
        self.hook = hook
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop, self.checkpoint = stop, checkpoint
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, batch.tokens.sum(dim=1).tolist()))
        return self.weight * 0

    def validation_step(self, batch, index):
        pass

    def on_train_batch_end(self, outputs, batch, index):
        self.die("batch")

    def on_validation_end(self):
        self.die("validation")

    def on_train_epoch_end(self):
        self.die("epoch")

    def die(self, hook: str) -> None:
        if hook == self.hook and len(self.seen) == self.stop:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, data, checkpoint=None, **options):
    Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[ExactResume()], **options,
    ).fit(module, data, ckpt_path=checkpoint)  # fmt: skip
    return module.seen


@LIGHTNINGS_OWN
@pytest.mark.parametrize(
    ("hook", "stop", "workers", "options"),
    [
        ("batch", 1, 0, {}),
        ("batch", 2, 2, {}),
        ("batch", 4, 0, {}),
        ("batch", 5, 2, {}),
        ("batch", 7, 0, {"accumulate_grad_batches": 2}),
        ("epoch", 4, 0, {}),
        ("epoch", 8, 2, {}),
        ("epoch", 6, 0, {"limit_train_batches": 3}),
        ("validation", 4, 2, {}),
        ("validation", 8, 0, {}),
        ("validation", 6, 0, {"val_check_interval": 2}),
    ],
)
def test_a_killed_run_sees_the_batches_it_would_have_seen(ready, tmp_path, hook, stop, workers, options):
    def data():
        return ready("digits", batch_size=300, num_workers=workers)  # 4 batches an epoch

    whole = fit(Recorder(), data(), **options)
    assert len(whole) == 3 * options.get("limit_train_batches", 4)
    assert whole[0][1] not in [tokens for _, tokens in whole[1:]]
    first = Recorder(stop, tmp_path / "killed.ckpt", hook)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(first, data(), **options)
    resumed = fit(Recorder(), data(), tmp_path / "killed.ckpt", **options)
    assert first.seen == whole[:stop]
    assert resumed == whole[stop:]


@LIGHTNINGS_OWN
def test_overfitting_repeats_the_same_batches(ready):
    seen = fit(Recorder(), ready("digits", batch_size=300), overfit_batches=2)
    assert len(seen) == 6
    assert [tokens for _, tokens in seen[:2]] == [tokens for _, tokens in seen[4:]]

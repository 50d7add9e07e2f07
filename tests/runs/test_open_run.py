"""A run opened from its directory alone, and every way in which the directory can be wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.errors import ConfigError, DataError
from xformer.runs.open_run import open_run
from xformer.training.run import run

TEXT = [*SMALL, "task=language_modeling", "data.block=32", "tokenizer=byte"]
PAIRS = [
    *SMALL,
    "task=seq2seq",
    "data.generation.train_size=60",
    "data.generation.val_size=20",
    "data.generation.test_size=20",
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one finished run is kept for all of these tests."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def finished(kept: Path, compose_job: ComposeJob, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    if not kept.exists():
        run(compose_job(*TEXT, directory=kept))
    return Path(shutil.copytree(kept, tmp_path / "copy"))


@pytest.mark.parametrize("overrides", [TEXT, PAIRS, [*SMALL, *SMALL_LISTOPS, "attention=bigbird"]])
def test_the_model_is_the_one_of_the_best_checkpoint(
    overrides: list[str], compose_job: ComposeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = compose_job(*overrides)
    run(job)
    moved = tmp_path / "elsewhere" / "copy"
    moved.parent.mkdir()
    shutil.move(job.directory, moved)
    monkeypatch.chdir(tmp_path / "elsewhere")  # nothing but the directory is needed: no cache and no data
    opened = open_run(moved)
    assert opened.summary.monitor is not None
    best = moved / "checkpoints" / f"step-{opened.summary.monitor.step}.ckpt"
    saved = torch.load(best, weights_only=True)["state_dict"]
    ours = opened.task.state_dict()
    assert set(ours) == set(saved)
    assert all(torch.equal(ours[name], saved[name]) for name in saved)
    assert not opened.task.training
    assert not hasattr(opened.data, "splits")
    assert sorted(path.name for path in moved.parent.iterdir()) == ["copy"]


def test_the_best_is_preferred_to_the_newest(finished: Path) -> None:
    newer = finished / "checkpoints" / "last.ckpt"
    state = torch.load(newer, weights_only=True)
    state["global_step"] += 7
    torch.save(state, newer)
    assert open_run(finished).checkpoint.name == "step-5.ckpt"
    (finished / "checkpoints" / "step-5.ckpt").unlink()
    assert open_run(finished).checkpoint == newer


def test_text_is_read_and_written_without_the_data(finished: Path) -> None:
    data = open_run(finished).data
    assert data.decode(data.encode("häagen").tolist()) == "häagen"


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _config(run: Path, **changes: Any) -> None:
    config = OmegaConf.load(run / "config.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.save(config, run / "config.yaml")


def _without_checkpoints(run: Path) -> None:
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:500])


BROKEN: dict[str, tuple[Any, type[Exception], str]] = {
    "no directory": (shutil.rmtree, DataError, "is not a directory; name a run directory"),
    "no summary": (lambda run: (run / "summary.json").unlink(), DataError, "is not a run directory, or the run was"),
    "failed": (
        lambda run: _edit(run / "summary.json", status="failed", error="loss is nan."),
        DataError,
        r"holds a run that failed \(loss is nan\)",
    ),
    "killed": (
        lambda run: _edit(run / "summary.json", status="running"),
        DataError,
        r"holds a run that has not ended \(It was killed, or is still running\)",
    ),
    "no checkpoint": (_without_checkpoints, DataError, "has no readable checkpoint"),
    "no config": (lambda run: (run / "config.yaml").unlink(), DataError, r"config\.yaml cannot be read"),
    "damaged config": (
        lambda run: (run / "config.yaml").write_text("a: [b"),
        DataError,
        r"config\.yaml cannot be read",
    ),
    "no spec": (lambda run: (run / "data.json").unlink(), DataError, r"data\.json cannot be read"),
    "a foreign target": (
        lambda run: _config(run, architecture__attention={"_target_": "os.system", "command": "true"}),
        ConfigError,
        r"_target_=os\.system is not of an option",
    ),
    "an allowed module's import": (
        lambda run: _config(run, task__loss={"_target_": "lightning.pytorch.core.saving.pl_load", "path_or_url": "x"}),
        ConfigError,
        r"_target_=lightning\.pytorch\.core\.saving\.pl_load is not of an option",
    ),
    "a target that a resolver makes": (
        lambda run: _config(run, task__loss="${oc.create:{_target_:torch.load,f:x}}"),
        ConfigError,
        r"_target_=torch\.load is not of an option",
    ),
    "an unknown key": (lambda run: _config(run, task__depth=3), ConfigError, r"task\.depth is not a parameter"),
    "another vocabulary": (
        lambda run: _edit(run / "data.json", vocabulary=300),
        DataError,
        r"has a vocabulary of 257 ids, and the run's data\.json one of 300",
    ),
    "a larger tokenizer": (
        lambda run: _edit(run / "data.json", vocabulary=100),
        DataError,
        "a tokenizer of 257 ids, but its model was trained with 100",
    ),
    "another width": (
        lambda run: _config(run, architecture__size__feed_forward=48),
        DataError,
        r"of shape .*, and the run's config\.yaml and data\.json describe",
    ),
    "another norm": (lambda run: _config(run, architecture__norm="post"), DataError, "does not describe: .* another"),
    "more depth": (lambda run: _config(run, architecture__size__layers=3), DataError, "lacks .* another model"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_is_said_in_a_sentence(broken: str, finished: Path) -> None:
    spoil, kind, message = BROKEN[broken]
    spoil(finished)
    with pytest.raises(kind, match=message) as caught:
        open_run(finished)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "inputs", "shape"),
    [
        (TEXT, ["The first"], (1, 9, 257)),
        (PAIRS, ["3 1 4", None, torch.tensor([[0, 3, 1]])], (1, 3, 19)),
        ([*SMALL, *SMALL_LISTOPS], ["[MAX 2 [MIN 4 7 ] 0 ]"], (1, 10)),
    ],
)
def test_logits_are_those_of_a_forward_pass(
    overrides: list[str], inputs: list[Any], shape: tuple[int, ...], compose_job: ComposeJob
) -> None:
    job = compose_job(*overrides)
    run(job)
    opened = open_run(str(job.directory))
    logits = opened.logits(*inputs)
    assert logits.shape == shape
    assert not logits.requires_grad
    ids = torch.as_tensor(opened.data.encode(inputs[0]), dtype=torch.long)[None]
    assert torch.equal(opened.encode(inputs[0]), ids)
    assert torch.equal(opened.logits(ids, *inputs[1:]), logits)


def test_inputs_that_the_model_does_not_read_are_told_in_a_sentence(finished: Path) -> None:
    opened = open_run(finished)
    with pytest.raises(ConfigError, match=r"LanguageModeling takes \(tokens, .*\), not 0 inputs: missing"):
        opened.logits()

"""A run that starts from another's weights: what is taken, and what a swap then costs."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.plan import Plan
from xformer.errors import ConfigError, DataError
from xformer.runs.checkpoints import readable_checkpoints
from xformer.runs.job import CONFIG_FILE
from xformer.runs.open_run import open_run
from xformer.runs.summary import read_summary
from xformer.tasks.base import Task
from xformer.training.run import run
from xformer.training.warm_start import load_warm_start

FAST = [*SMALL, *SMALL_LISTOPS]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one finished run is kept for all of these tests."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def other(kept: Path, compose_job: ComposeJob) -> Path:
    """A run of full attention."""
    if not kept.exists():
        run(compose_job(*FAST, "optimizer.lr=0.01", directory=kept))
    return kept


def task_of(compose_job: ComposeJob, *overrides: str) -> Task:
    plan = Plan.of(compose_job(*FAST, *overrides).config)
    plan.load_data()
    return plan.build_task()


def test_the_same_configuration_starts_where_the_other_run_ended(other: Path, compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, f"init_from={other}", "trainer.max_steps=0", "seed=3")
    run(job)
    before, after = read_summary(other), read_summary(job.directory)
    for name in ("val/loss", "val/accuracy", "test/loss", "test/accuracy"):
        assert after.metrics[name] == before.metrics[name]
    assert after.warm_start is not None
    assert (after.warm_start["run"], after.warm_start["fresh"], after.warm_start["left"]) == (str(other), [], [])
    assert next(readable_checkpoints(job.directory))[1]["global_step"] == 0
    best, again = (open_run(directory).task.state_dict() for directory in (other, job.directory))
    assert all(torch.equal(best[name], again[name]) for name in best)


def test_the_source_is_the_other_runs_configuration_whatever_its_seed_and_place(
    other: Path, compose_job: ComposeJob, tmp_path: Path
) -> None:
    def source(**changed: str | int) -> str:
        copy = shutil.copytree(other, tmp_path / "".join(map(str, changed.values())))
        config = OmegaConf.load(copy / CONFIG_FILE)
        for key, value in changed.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        OmegaConf.save(config, copy / CONFIG_FILE)
        return load_warm_start(task_of(compose_job), copy).source

    assert source(seed=1) == source(seed=2, cache="elsewhere") != source(optimizer__lr=0.5)
    assert source(seed=3).startswith("full-")


def test_a_swap_keeps_all_but_the_variants_own_weights(
    other: Path, compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job = compose_job(*FAST, "size.layers=1", f"init_from={other}", "attention=linformer", "trainer.max_steps=1")
    fresh = task_of(compose_job, "attention=linformer").state_dict()
    run(job)
    warm_start = read_summary(job.directory).warm_start
    assert warm_start is not None
    own = {name for name in fresh if name.endswith(("mix.project_key", "mix.project_value"))}
    assert set(warm_start["fresh"]) == own
    assert len(own) == 2
    assert (warm_start["loaded"], warm_start["left"]) == (len(fresh) - 2, [])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Started from")]
    assert "blocks.*.attention.branch.mix.project_key" in line

    task = task_of(compose_job, "attention=linformer")
    load_warm_start(task, other)
    weights, theirs = task.state_dict(), open_run(other).task.state_dict()
    assert all(torch.equal(weights[name], fresh[name] if name in own else theirs[name]) for name in fresh)


def test_what_has_another_shape_is_left(other: Path, compose_job: ComposeJob) -> None:
    task = task_of(compose_job, "size.feed_forward=48", "attention=performer")
    before = {name: value.clone() for name, value in task.state_dict().items()}
    warm_start = load_warm_start(task, other)
    widened = {name for name in before if ".expand." in name or name.endswith("contract.weight")}
    assert set(warm_start.left) == widened
    assert set(warm_start.fresh) == widened | {name for name in before if ".log_features." in name}
    assert all(torch.equal(task.state_dict()[name], before[name]) for name in warm_start.fresh)


def test_buffers_come_with_the_variant(compose_job: ComposeJob, tmp_path: Path) -> None:
    """BigBird's random blocks and Performer's features are what the weights were trained with."""
    for name in ("bigbird", "performer"):
        where = tmp_path / name
        run(compose_job(*FAST, f"attention={name}", "trainer.max_steps=2", directory=where))
        task = task_of(compose_job, f"attention={name}", "seed=5")
        before = {key: value.clone() for key, value in task.named_buffers() if ".mix." in key}
        load_warm_start(task, where)
        expected: dict[str, Tensor] = open_run(where).task.state_dict()
        stored = [key for key in before if key in expected]
        assert stored
        assert all(torch.equal(task.state_dict()[key], expected[key]) for key in stored)
        assert not all(torch.equal(before[key], expected[key]) for key in stored)


def test_nothing_to_start_from_is_refused_in_a_sentence(other: Path, compose_job: ComposeJob, tmp_path: Path) -> None:
    cases = {
        tmp_path / "nowhere": (DataError, "nowhere is not a directory; name a run directory"),
        tmp_path: (DataError, "has no summary.json"),
    }
    for directory, (error, words) in cases.items():
        with pytest.raises(error, match=words):
            run(compose_job(*FAST, f"init_from={directory}", directory=tmp_path / "run"))
    text = [*SMALL, "task=language_modeling", "data.block=16", "size.d_model=48", "size.feed_forward=48"]
    with pytest.raises(ConfigError, match=r"init_from=.*no parameter of that run has the name and the shape"):
        run(compose_job(*text, f"init_from={other}", directory=tmp_path / "text"))

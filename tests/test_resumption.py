"""What a run is resumed with: its own configuration, and what else may be."""

import copy
import functools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from tests.test_refusals import tree
from xformer.config.plan import Plan
from xformer.config.redact import resolved_config
from xformer.errors import ConfigError, RunError
from xformer.runs.job import Job
from xformer.runs.metrics_table import read_metrics
from xformer.runs.recorded_run import read_run
from xformer.runs.summary import Summary, write_summary
from xformer.training import resume as continuation
from xformer.training.resume import MAY_CHANGE, MAY_GROW, Earlier, expand_resume
from xformer.training.run import run
from xformer.training.trainer import write_config

ROOT = Path(__file__).parents[1]
FAST = [*SMALL, *SMALL_LISTOPS]
_WATCHED = (  # as the documents put it: loggers, and what only watches, stores or loads
    "logger", "callbacks.progress", "callbacks.throughput", "callbacks.last_checkpoint", "callbacks.save_on_interrupt",
    "callbacks.checkpoint.dirpath", "data.loader.num_workers", "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "trainer.profiler", "cache", "resume", "skip_finished", "on_incompatible", "study",
    "experiment", "debug", "threads", "callbacks.checkpoint.enable_version_counter",
)  # fmt: skip


def _documented() -> list[str]:
    page = (ROOT / "docs" / "running.md").read_text()
    listed = re.search("<!-- resumed -->(.*?)<!-- /resumed -->", page, re.DOTALL)
    assert listed is not None
    return re.findall("`(.*?)`", listed[1])


def test_the_documents_list_what_may_differ() -> None:
    assert _documented() == [*MAY_GROW, *MAY_CHANGE]


def test_every_key_of_a_configuration_is_compared_but_what_is_listed(
    compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is made another in turn, in what the run left, and the run is resumed."""
    job = compose_job(*FAST, "attention=linformer", "resume=true")
    Plan.read(job.config, job.choices)
    written = resolved_config(job.config)
    write_summary(job.directory, Summary("finished", choices=job.choices))
    write_config(job)
    monkeypatch.setattr(continuation, "resolved_config", lambda config: copy.deepcopy(written))
    free, refused, every = [*_documented(), *_WATCHED], {}, list(_keys(written))
    for path in every:
        changed, key = copy.deepcopy(written), ".".join(path)
        node = functools.reduce(dict.__getitem__, path[:-1], changed)
        node[path[-1]] = 1 if key in MAY_GROW else "another"
        monkeypatch.setattr(Earlier, "config", changed)
        if (said := _refusal(job)) is not None:
            refused[key] = said
    listed = {key for key in map(".".join, every) if any(f"{key}.".startswith(f"{name}.") for name in free)}
    # A part that stands twice, as size in architecture.size, is compared where it differs from the other.
    assert {".".join(path) for path in every} - listed == {*refused}
    assert all(f"{key} was " in said or "more)" in said for key, said in refused.items())
    assert len(refused) > 60
    assert {"seed", "optimizer.lr", "attention.rank", "data.generation.train_size", "trainer.precision"} <= {*refused}


def _refusal(job: Job) -> str | None:
    try:
        Earlier(job).finished()
    except RunError as error:
        return str(error)
    return None


def _keys(node: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _keys(value))
        elif name not in ("_partial_", "_convert_", "_recursive_"):
            yield (name,)


@pytest.mark.parametrize(("old", "new", "allowed"), [(5, 10, True), (5, 3, False), (5, -1, True), (-1, 5, False)])
def test_a_run_may_become_longer_and_not_shorter(old: int, new: int, allowed: bool) -> None:
    assert continuation._may_change("trainer.max_steps", old, new) is allowed


def test_a_schedule_that_more_steps_bend_is_told(compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> None:
    run(compose_job(*FAST, "schedule.warmup_steps=1", "schedule.final_ratio=0.0"))
    capsys.readouterr()
    longer = ["schedule.warmup_steps=1", "schedule.final_ratio=0.0", "resume=true", "trainer.max_steps=10"]
    run(compose_job(*FAST, *longer))
    then, now = ((1 + math.cos(math.pi * min(1, (5 - 1) / (total - 1)))) / 2 for total in (5, 10))
    told = " ".join(capsys.readouterr().out.split())
    assert f"at step 5 the learning rate was {then:.4g} of its peak for 5 steps and is {now:.4g} for 10," in told


def test_a_schedule_that_more_steps_do_not_change_is_not_told(
    compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    run(compose_job(*FAST, "schedule=constant"))
    run(compose_job(*FAST, "schedule=constant", "resume=true", "trainer.max_steps=6"))
    assert "depends on" not in capsys.readouterr().out


def test_a_longer_run_resumed_with_other_workers_and_logger_says_what_it_is(compose_job: ComposeJob) -> None:
    run(compose_job(*FAST))
    job = compose_job(*FAST, "resume=true", "trainer.max_steps=8", "logger=tensorboard", "data.loader.num_workers=1")
    run(job)
    found = read_run(job.directory)
    assert (found.summary.status, found.settings["trainer.max_steps"]) == ("finished", 8)
    assert [row.step for row in read_metrics(job.directory) if row.metric == "train/loss"] == list(range(8))


# resume=DIR


def _left(directory: Path, *overrides: str, started_in: Path | None = None) -> Path:
    directory.mkdir(parents=True)
    where = None if started_in is None else str(started_in)
    write_summary(directory, Summary("interrupted", overrides=list(overrides), seed=0, started_in=where))
    return directory


def test_a_directory_stands_for_its_own_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["attention=linformer", "attention@decoder_attention=local", "attention.rank=8", "logger=wandb",
           "logger.wandb.project=p", "trainer.max_steps=5", "resume=true"]  # fmt: skip
    directory = _left(tmp_path / "sweep" / "attention=linformer,seed=0,it's one", *own)
    typed = ["--verbose", f"resume={directory.relative_to(tmp_path)}", "trainer.max_steps=9", "logger=csv"]
    kept = [*own[:3], "resume=true", f"hydra.run.dir='{str(directory).replace(chr(39), chr(92) + chr(39))}'"]
    assert expand_resume(typed) == ["--verbose", *kept, "hydra.mode=RUN", "trainer.max_steps=9", "logger=csv"]
    assert expand_resume(["resume=true", "seed=1"]) == ["resume=true", "seed=1"]
    assert expand_resume(["resume=False"]) == ["resume=False"]


def test_a_secret_that_was_not_kept_is_asked_for(tmp_path: Path) -> None:
    directory = _left(tmp_path / "run", "logger=wandb", "+logger.wandb.api_key=***", "seed=1")
    with pytest.raises(
        ConfigError, match=r"logger\.wandb\.api_key is a secret and was not stored with the run: pass it again\.$"
    ):
        expand_resume([f"resume={directory}"])
    typed = "+logger.wandb.api_key=mine"
    assert expand_resume([f"resume={directory}", typed]) == [
        "logger=wandb", "seed=1", "resume=true", f"hydra.run.dir='{directory}'", "hydra.mode=RUN", typed
    ]  # fmt: skip


def test_relative_paths_are_meant_from_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "started").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    directory = _left(tmp_path / "run", started_in=tmp_path / "started")
    assert f"hydra.run.dir='{directory}'" in expand_resume(["resume=../run"])
    assert Path.cwd() == tmp_path / "started"
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "started").rmdir()
    assert f"hydra.run.dir='{directory}'" in expand_resume(["resume=../run"])
    assert Path.cwd() == tmp_path / "here"


def _train(*words: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, os.path.relpath(ROOT / "train.py", cwd), *words], cwd=cwd, capture_output=True, text=True,
        timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", "XFORMER_CACHE": str(cache)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_cell_of_a_sweep_is_continued_from_another_place_after_it_was_moved(tmp_path: Path, cache: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "text.txt").write_text("One line of a text, and another one of it. " * 60)
    words = [*SMALL, "task=language_modeling", "data.block=16", "tokenizer=byte", "data.source.files=text.txt",
             "schedule=constant"]  # fmt: skip
    where = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    swept = _train("-m", *words, *where, "seed=0,1", cwd=home, cache=cache)
    assert swept.returncode == 0, swept.stderr
    (cell,) = (path.parent for path in (home / "sweep").rglob("summary.json") if "seed=1" in path.parent.name)
    moved = Path(shutil.move(cell, elsewhere / "run"))
    whole = _train(*words, "seed=1", "trainer.max_steps=10", "hydra.run.dir=whole", cwd=home, cache=cache)
    assert whole.returncode == 0, whole.stderr
    resumed = _train("resume=run", "trainer.max_steps=10", cwd=elsewhere, cache=cache)
    assert resumed.returncode == 0, resumed.stderr
    there, here = read_run(home / "whole"), read_run(moved)
    assert (here.settings, here.seed) == (there.settings, 1)
    assert here.summary.metrics == there.summary.metrics
    before = tree(elsewhere)
    again = _train("resume=run", cwd=elsewhere, cache=cache)
    assert (again.returncode, tree(elsewhere)) == (0, before), again.stderr
    assert "Already finished" in again.stdout
    refused = _train("resume=run", "seed=7", "optimizer.lr=0.3", cwd=elsewhere, cache=cache)
    assert (refused.returncode, tree(elsewhere)) == (1, before)
    assert "(seed was 1 and is 7; optimizer.lr was" in " ".join(refused.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["resume=true"]], ids=["two runs", "two resumes"])
def test_of_two_processes_in_one_directory_one_is_refused(words: list[str], tmp_path: Path, cache: Path) -> None:
    steps = ["trainer.max_steps=300", "trainer.val_check_interval=100"]
    typed = [*FAST, *steps, f"hydra.run.dir={tmp_path / 'run'}", f"cache={cache}"]
    if words:
        first = _train(*typed, "trainer.max_steps=5", "trainer.val_check_interval=100", cwd=ROOT, cache=cache)
        assert first.returncode == 0, first.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "train.py", *typed, *words], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [" ".join(process.communicate(timeout=300)[1].split()) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], told
    winner = both[codes.index(0)].pid
    assert re.search(rf"is in use by (process {winner}|another process)", told[codes.index(1)])
    rows = [(row.step, row.metric) for row in read_metrics(tmp_path / "run")]
    assert len(rows) == len({*rows}) == (tmp_path / "run" / "metrics.csv").read_text().count("\n") - 1
    assert [step for step, metric in rows if metric == "train/loss"] == list(range(300))
    assert read_run(tmp_path / "run").summary.status == "finished"

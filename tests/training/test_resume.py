"""A study that is stopped and started again ends with every cell once."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.callbacks.throughput import Throughput
from xformer.config.compose import cell_directory_name
from xformer.config.groups import CONF
from xformer.errors import RunError
from xformer.runs.job import CONFIG_FILE
from xformer.runs.metrics_table import read_metrics, series
from xformer.runs.recorded_run import load_runs, read_run
from xformer.runs.summary import FILE, read_summary
from xformer.studies.study import Study, studies
from xformer.training.run import run

ROOT = Path(__file__).parents[2]
FAST = [*SMALL, *SMALL_LISTOPS, "skip_finished=true"]


def test_a_finished_cell_is_not_run_again(compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> None:
    best = run(compose_job(*FAST))
    job = compose_job(*FAST, "trainer.enable_progress_bar=false")  # how a run is watched does not make it another
    before = {file: file.stat().st_mtime_ns for file in job.directory.rglob("*") if file.is_file()}
    assert run(job) == best
    assert {file: file.stat().st_mtime_ns for file in job.directory.rglob("*") if file.is_file()} == before
    assert "Already finished" in capsys.readouterr().out


def test_a_stopped_cell_goes_on_and_ends_as_if_it_had_not_been_stopped(compose_job: ComposeJob, tmp_path: Path) -> None:
    whole = compose_job(*FAST, "trainer.max_steps=10", directory=tmp_path / "whole")
    run(whole)
    run(compose_job(*FAST, "trainer.max_steps=5"))
    stopped = tmp_path / "run"
    config = stopped / "config.yaml"  # as a run of 10 steps leaves it that is killed after 5
    config.write_text(config.read_text().replace("max_steps: 5", "max_steps: 10"))
    (stopped / FILE).unlink()
    run(compose_job(*FAST, "trainer.max_steps=10"))
    assert read_summary(stopped).metrics == read_summary(whole.directory).metrics
    curves = [series(read_metrics(directory))["train/loss"] for directory in (stopped, whole.directory)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    "lost",
    [
        "nothing",
        pytest.param("the test and its rows", marks=pytest.mark.slow),
        pytest.param("the step after the checkpoint", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_killed_in_its_final_test_ends_as_if_it_had_not_been(
    lost: str, compose_job: ComposeJob, tmp_path: Path
) -> None:
    words = [*SMALL, *SMALL_LISTOPS, "trainer.log_every_n_steps=2"]  # the last step is not one that is logged
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(compose_job(*words, directory=whole))
    code = _KILLED[lost]
    command = [
        sys.executable,
        "-c",
        code,
        *words,
        f"hydra.run.dir={killed}",
        f"cache={compose_job(*words).config.cache}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert read_run(killed).summary.status == "running"
    run(compose_job(*words, "resume=true", directory=killed))
    there, here = read_summary(whole), read_summary(killed)
    assert (here.status, here.metrics, here.monitor) == ("finished", there.metrics, there.monitor)
    assert (here.tokens_seen, here.data_fingerprint) == (there.tokens_seen, there.data_fingerprint)
    assert _rows(killed) == _rows(whole)


_KILL = "from xformer.cli import train; import os; kill = lambda *a, **k: os.kill(os.getpid(), 9); "
_KILLED = {
    "nothing": _KILL + "import lightning.pytorch as l; l.Trainer.test = kill; train()",
    "the test and its rows": _KILL + "from xformer.tasks.base import Task; Task.epilogue = kill; train()",
    "the step after the checkpoint": _KILL
    + "from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as Loop; end = Loop.on_advance_end; "
    + "Loop.on_advance_end = lambda loop, f: (end(loop, f), loop.trainer.global_step == 5 and kill()); train()",
}


def _rows(directory: Path) -> list[list[str]]:
    """The lines of the table but for the seconds and what is a speed."""
    lines = [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()]
    return [[*line[:3], *line[4:]] for line in lines if "tokens_per_second" not in line]


def test_a_resumed_run_took_the_time_of_both_parts(compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run(compose_job(*SMALL, *SMALL_LISTOPS, "trainer.max_steps=5"))
    resumed, load = (
        compose_job(*SMALL, *SMALL_LISTOPS, "trainer.max_steps=10", "resume=true"),
        Throughput.load_state_dict,
    )

    def slow(self: Throughput, state: dict[str, float]) -> None:
        assert state["seconds"] > 0
        load(self, {**state, "seconds": 1000.0})

    monkeypatch.setattr(Throughput, "load_state_dict", slow)
    run(resumed)
    seconds = read_summary(resumed.directory).wall_seconds
    assert seconds is not None
    assert 1000 < seconds < 2000


def test_a_directory_of_another_configuration_is_refused_and_left_alone(compose_job: ComposeJob) -> None:
    run(compose_job(*FAST))
    changed = compose_job(*FAST, "optimizer.lr=0.5")
    with pytest.raises(RunError, match=r"optimizer\.lr was 0\.001 and is 0\.5"):
        run(changed)
    with pytest.raises(RunError, match="seed was 0 and is 1"):
        run(compose_job(*FAST, "seed=1"))
    assert read_summary(changed.directory).status == "finished"
    with pytest.raises(RunError, match=r"callbacks\.early_stopping"):
        run(compose_job(*FAST, "callbacks=[default,early_stopping]"))  # a group that was not there at all
    before = (changed.directory / CONFIG_FILE).read_text() + "\nnotes: null\n"
    (changed.directory / CONFIG_FILE).write_text(before)
    with pytest.raises(RunError, match="notes was null and is absent"):  # null is something else than no such key
        run(compose_job(*FAST))


@pytest.mark.parametrize("damage", ["a: [1", "- a\n", "\0"])
def test_a_directory_of_a_damaged_configuration_is_refused_in_a_sentence(damage: str, compose_job: ComposeJob) -> None:
    job = compose_job(*FAST)
    (job.directory / CONFIG_FILE).write_text(damage)
    with pytest.raises(RunError, match=r"config\.yaml is damaged.*move it away\.$"):
        run(job)


def test_cells_have_names_of_their_own_that_a_file_system_takes() -> None:
    assert cell_directory_name("attention=full,seed=0") == "attention=full,seed=0"
    names = [cell_directory_name(f"data.source.files={'a/b c' * 100},seed={seed}") for seed in range(3)]
    assert len(set(names)) == 3
    assert cell_directory_name("a=x/y") != cell_directory_name("a=x y")
    watched = "callbacks=[default,curriculum],data.loader.num_workers=2,logger=wandb,++logger.wandb.project=p,seed=0"
    assert cell_directory_name(f"{watched},trainer.enable_progress_bar=false") == cell_directory_name(
        "callbacks=[default,curriculum],seed=0"
    )
    assert (
        cell_directory_name("data.kind=sort,seed=0")
        != cell_directory_name("data.kind=reverse,seed=0")
        != cell_directory_name("data.kind=reverse,seed=1")
    )
    for name in names:
        assert re.fullmatch(r"[\w.,=@+-]{1,200}", name)


@pytest.mark.parametrize("name", studies())
def test_a_study_says_what_it_asks_and_can_be_continued(name: str, compose_job: ComposeJob) -> None:
    study = Study.of(name)
    assert study.directory == Path("outputs/studies") / name
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("train", overrides=[f"experiment={name}"], return_hydra_config=True).hydra
    assert (Path(hydra.sweep.dir), tuple(hydra.sweeper.params)) == (study.directory, study.grid)
    job = compose_job(f"experiment={name}", "trainer.accelerator=cpu")
    assert job.config.skip_finished
    assert (study.question, study.metric) == (job.config.study.question, job.config.study.get("metric"))
    assert study.question.endswith("?")
    for setting in study.baseline.split() if study.baseline else ():
        assert OmegaConf.select(job.config, setting.partition("=")[0]) is not None
    assert OmegaConf.to_container(hydra.sweep, resolve=False)["subdir"] == "${cell:${hydra.job.override_dirname}}"


def _finished(summary: Path) -> bool:
    return read_summary(summary.parent).status == "finished"


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_started_again_ends_with_every_cell_once(tmp_path: Path, cache: Path) -> None:
    overrides = ["experiment=listops_attentions", "attention=full,linformer", "seed=0,1", *SMALL, *SMALL_LISTOPS]
    words = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.sweep.dir={tmp_path}", f"cache={cache}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while not (done := [file for file in tmp_path.rglob(FILE) if _finished(file)]) and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.wait()
    before = {file: file.read_bytes() for file in done}
    assert 0 < len(before) < 4
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=600)
    assert {file: file.read_bytes() for file in before} == before
    runs = load_runs([tmp_path])
    cells = [(run.settings["attention"], run.seed, run.summary.status) for run in runs]
    assert sorted(cells) == [(a, s, "finished") for a in ("full", "linformer") for s in (0, 1)]

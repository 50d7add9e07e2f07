"""A study that tunes: trials first, final runs with what they choose, stopped and continued at any time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.conftest import SMALL, SMALL_LISTOPS
from xformer import cli
from xformer.errors import DivergedError, Interrupted, XformerError
from xformer.runs import sweep
from xformer.runs.job import Job
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.runs.summary import MonitoredMetric, Summary, TuningRole, read_summary, write_summary
from xformer.studies.comparison import compare
from xformer.studies.trials import tuning_of
from xformer.training import run as training
from xformer.training.trainer import write_config

ROOT = Path(__file__).parents[2]
BEST = {"full": 0.001, "linformer": 0.01}
STUDY = """# @package _global_
defaults:
  - override /logger: csv
  - override /size: tiny
study:
  question: Does it?
  baseline: attention=full
  expected: seconds
  tune:
    optimizer.lr: [1.0e-3, 1.0e-2]
    seeds: [100]
skip_finished: true
on_incompatible: skip
data:
  generation:
    train_size: 200
    val_size: 64
    test_size: 64
trainer:
  accelerator: cpu
  max_steps: 5
  val_check_interval: 5
hydra:
  mode: MULTIRUN
  sweep:
    dir: DIRECTORY
    subdir: ${cell:${hydra.job.override_dirname}}
  sweeper:
    params:
      attention: full,linformer
      seed: 0
"""
GRID, MORE = "[1.0e-3, 1.0e-2]", "[1.0e-3, 3.0e-3, 1.0e-2]"


class FakeTraining:
    """Runs that leave a record with numbers of our choice, and train nothing.

    Attributes:
        started: the overrides of each run that was not finished already.
        best: attention to its best learning rate.
        fail: what a run raises, by a word of its overrides.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.best: dict[str, float] = dict(BEST)
        self.fail: dict[str, BaseException] = {}

    def __call__(self, job: Job) -> None:
        name = ",".join(o for o in job.overrides if o.startswith(("attention", "optimizer", "seed")))
        if (job.directory / "summary.json").exists():
            earlier = read_summary(job.directory)
            if earlier.status == "finished" or (earlier.is_trial and earlier.diverged):
                return
        self.started.append(name)
        tuning = job.tuning
        summary = Summary("finished", None, dict(job.choices), list(job.overrides), seed=job.config.seed, tuning=tuning)
        error = next((error for word, error in self.fail.items() if word in name), None)
        if error is None:
            value = 0.5 - abs(job.config.optimizer.lr - self.best[job.choices["attention"]]) + job.config.seed / 1e4
            summary.metrics = {"val/accuracy": value}
            if not summary.is_trial:
                summary.metrics["test/accuracy"] = value
            summary.monitor = MonitoredMetric("val/accuracy", "max", value, 5)
        else:
            summary.status, summary.error = "failed", str(error)
            summary.diverged = isinstance(error, DivergedError)
        write_config(job)
        write_summary(job.directory, summary)
        if error is not None:
            raise error


Start = Callable[..., tuple[int, str]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTraining]:
    found = FakeTraining()
    monkeypatch.setattr(training, "run", found)
    yield found
    sweep.end_sweep()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """(exit code, what was shown) of `train.py experiment=tuned` with a grid of learning rates and further words."""

    def start(*words: str, grid: str = GRID, study: str = STUDY) -> tuple[int, str]:
        folder = tmp_path / "conf" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        text = study.replace("DIRECTORY", str(tmp_path / "sweep")).replace(GRID, grid)
        (folder / "tuned.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["train.py", f"--config-dir={folder.parent}", "experiment=tuned", *words])
        monkeypatch.setenv("COLUMNS", "300")
        code = 0
        try:
            cli.train()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        shown = capsys.readouterr()
        return code, " ".join((shown.out + shown.err).split())

    return start


def recorded(tmp_path: Path) -> list[RecordedRun]:
    return load_runs([tmp_path / "sweep"])


TRIALS = [f"attention={a},optimizer.lr={lr},seed=100" for a in BEST for lr in (0.001, 0.01)]
FINALS = [f"attention={a},optimizer.lr={lr:g},seed=0" for a, lr in BEST.items()]


def test_trials_run_first_and_final_runs_have_what_they_choose(
    fake: FakeTraining, start: Start, tmp_path: Path
) -> None:
    code, shown = start()
    assert code == 0, shown
    assert fake.started == [*TRIALS, *FINALS]
    assert "Chosen for attention=linformer: optimizer.lr=0.01 of 2 settings." in shown
    runs = recorded(tmp_path)
    trials = [run for run in runs if run.summary.is_trial]
    assert len(trials) == 4
    assert all(run.directory and run.directory.parent == tmp_path / "sweep" / "tune" for run in trials)
    assert not any("test/accuracy" in run.summary.metrics for run in trials)
    assert [row.name for row in compare(runs).rows] == ["attention=full", "attention=linformer"]


def test_a_sweep_that_was_stopped_among_its_trials_goes_on(fake: FakeTraining, start: Start, tmp_path: Path) -> None:
    import signal

    fake.fail = {TRIALS[2]: Interrupted(signal.SIGINT)}
    code, _ = start()
    assert code == 130
    assert fake.started == TRIALS[:3]
    fake.started, fake.fail = [], {}
    assert start()[0] == 0
    assert fake.started == [*TRIALS[2:], *FINALS]
    fake.started = []
    assert start()[0] == 0
    assert fake.started == []


def test_a_larger_grid_runs_new_trials_and_the_final_runs_whose_choice_changed(
    fake: FakeTraining, start: Start, tmp_path: Path
) -> None:
    fake.best["full"] = 0.0021  # nearer to 0.001 than to 0.01, and nearest to 0.003
    start()
    before = {run.name: run.summary for run in recorded(tmp_path)}
    fake.started = []
    code, _ = start(grid=MORE)
    assert code == 0
    assert fake.started == [
        *(f"attention={attention},optimizer.lr=0.003,seed=100" for attention in BEST),
        "attention=full,optimizer.lr=0.003,seed=0",
    ]
    after = {run.name: run.summary for run in recorded(tmp_path)}
    assert {name: after[name] for name in before} == before
    found = compare(recorded(tmp_path))
    assert [row.tuned.chosen.name for row in found.rows if row.tuned and row.tuned.chosen] == [
        "optimizer.lr=0.003", "optimizer.lr=0.01",
    ]  # fmt: skip
    (reason,) = found.left_out.values()
    assert reason.startswith("it has optimizer.lr=0.001, and the trials of attention=full")


def test_a_diverged_setting_is_never_chosen_nor_run_again(fake: FakeTraining, start: Start, tmp_path: Path) -> None:
    fake.fail = {TRIALS[0]: DivergedError("The training loss is nan at step 3.")}
    code, _ = start()
    assert code == 0
    assert "attention=full,optimizer.lr=0.01,seed=0" in fake.started
    fake.started = []
    assert start()[0] == 0
    assert fake.started == []
    tuning = tuning_of(recorded(tmp_path))
    assert tuning
    assert [v.trials for v in tuning.variants.values()] == [2, 2]


def test_a_variant_of_which_every_setting_diverged_has_no_final_run(fake: FakeTraining, start: Start) -> None:
    fake.fail = {"attention=full": DivergedError("The training loss is nan at step 3.")}
    code, shown = start()
    assert code == 1
    assert "error: attention=full has no final run: all its trials diverged; add lower values to study.tune." in shown
    assert fake.started == [*TRIALS, *FINALS[1:]]


def test_a_failed_trial_is_told_and_the_other_variants_have_their_final_runs(fake: FakeTraining, start: Start) -> None:
    fake.fail = {TRIALS[1]: XformerError("out of memory.")}
    code, shown = start()
    assert code == 1
    words = "attention=full has no final run, because 1 of its trials gave no value: optimizer.lr=0.01 seed=100: failed"
    assert f"error: {words}: out of memory. Run the same command again to continue." in shown
    assert fake.started == [*TRIALS, *FINALS[1:]]
    fake.started, fake.fail = [], {}
    assert start()[0] == 0
    assert fake.started == [TRIALS[1], *FINALS[:1]]


def test_a_failed_trial_of_a_value_that_the_grid_no_longer_has_is_no_hindrance(
    fake: FakeTraining, start: Start
) -> None:
    fake.fail = {"optimizer.lr=0.003": XformerError("out of memory.")}
    assert start(grid=MORE)[0] == 1
    assert start(grid=GRID)[0] == 0
    assert fake.started[-2:] == FINALS


def test_a_tuned_key_on_the_command_line_takes_the_place_of_trials(fake: FakeTraining, start: Start) -> None:
    code, _ = start("optimizer.lr=0.005", "attention=full")
    assert code == 0
    assert [set(name.split(",")) for name in fake.started] == [{"optimizer.lr=0.005", "attention=full", "seed=0"}]


def test_more_seeds_of_one_variant_need_its_trials_alone(fake: FakeTraining, start: Start) -> None:
    assert start("attention=full", "seed=7")[0] == 0
    assert fake.started == [*TRIALS[:2], "attention=full,optimizer.lr=0.001,seed=7"]


@pytest.mark.parametrize(
    ("words", "study", "told"),
    [
        (["seed=0,100"], STUDY, "study.tune.seeds=[100] has 100, which is also a seed of final runs; use others"),
        (["study.tune.seeds=[0]"], STUDY, "study.tune.seeds=[0] has 0, which is also a seed of final runs"),
        (["study.tune.metric=test/loss"], STUDY.replace("seeds: [100]", "seeds: [100]\n    metric: val/loss"),
         "study.tune.metric=test/loss is no validation metric"),
        ([], STUDY.replace("      attention:", "      optimizer.lr: 0.1,0.2\n      attention:"),
         "optimizer.lr is in study.tune and in hydra.sweeper.params; leave it in one"),
        (["optimizer.lr=0.1"], STUDY.replace("seeds: [100]", "optimizer.weight_decay: [0.0, 0.1]\n    seeds: [100]"),
         "study.tune tunes optimizer.lr, optimizer.weight_decay, and optimizer.lr alone is set; set all of them or"),
        (["hydra/sweeper=search"], STUDY, "study.tune tries its own grid and not hydra/sweeper=search"),
        ([], STUDY.replace("optimizer.lr:", "optimizer.lrr:"), "optimizer.lrr is not a key of the configuration"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_a_sentence(
    words: list[str], study: str, told: str, fake: FakeTraining, start: Start
) -> None:
    code, shown = start(*words, study=study)
    assert code == 1
    assert told in shown
    assert fake.started == []


def test_trials_of_other_seeds_are_refused(fake: FakeTraining, start: Start) -> None:
    start()
    fake.started = []
    code, shown = start(study=STUDY.replace("seeds: [100]", "seeds: [200]"))
    assert code == 1
    assert "holds trials of seed 100, which study.tune.seeds=[200] lacks; add it there, or use another" in shown
    assert fake.started == []


def test_a_sweep_without_the_block_is_that_of_hydra(fake: FakeTraining, start: Start) -> None:
    assert start("study.tune=null")[0] == 0
    assert fake.started == [f"attention={attention},seed=0" for attention in BEST]


def test_cells_are_counted_with_their_trials(fake: FakeTraining, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watched(job: Job) -> float | None:
        seen.append(sweep.current_sweep())
        return fake(job)

    monkeypatch.setattr(training, "run", watched)
    start()
    assert {found.cells for found in seen} == {6}
    assert {found.varies for found in seen} == {("attention", "optimizer.lr", "seed")}


@pytest.mark.slow
def test_a_study_is_tuned_two_at_a_time_recorded_reproduced_and_compared(tmp_path: Path, cache: Path) -> None:
    """From a clone of its own, by the commands that a person types."""
    clone = tmp_path / "clone"
    for name in ("conf", "experiments", "xformer"):
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", clone)
    (clone / ".gitignore").write_text("outputs/\n__pycache__/\n")
    file = clone / "experiments" / "tuned.yaml"
    file.write_text(STUDY.replace("DIRECTORY", "outputs/studies/tuned").replace("seed: 0\n", "seed: 0,1\n"))
    environment = {**os.environ, "PYTHONPATH": str(clone), "XFORMER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> tuple[int, str]:
        done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=900)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def xformer(*words: str) -> tuple[int, str]:
        return start(sys.executable, "-m", "xformer.cli", *words)

    code, shown = start(sys.executable, "train.py", "experiment=tuned", "hydra/launcher=local")
    assert code == 0, shown
    assert "Sweep: 8 cells, 8 finished" in shown
    trials = [run for run in load_runs([clone / "outputs" / "studies" / "tuned"]) if run.summary.is_trial]
    assert len(trials) == 4
    assert not any(name.startswith("test/") for run in trials for name in run.summary.metrics)

    code, shown = xformer("record", "tuned")
    assert code == 0, shown
    folder = clone / "experiments" / "tuned"
    assert {"tuning.svg", "tuning.png", "runs.csv"} <= {path.name for path in folder.iterdir()}
    assert "was chosen from 2 settings in 2 trials (seed 100)" in (folder / "README.md").read_text()

    code, shown = xformer("reproduce", "tuned", "--cells", "attention=linformer", "--seeds", "0,100")
    assert code == 0, shown
    assert "chosen settings: as the trials of the table choose them" in shown
    assert "4 pass" in shown  # the choice, two trials and a final run
    assert shown.count("identical in every metric") == 3

    table = folder / "runs.csv"
    text = table.read_text().splitlines()
    best = next(line for line in text if "seed=100" in line and "attention=full" in line)
    table.write_text("\n".join(line for line in text if line != best) + "\n")
    shutil.rmtree(clone / "outputs")
    code, shown = xformer("compare", "tuned")
    assert code == 0, shown
    assert "the groups did not have the same trials (attention=full 1, attention=linformer 2)" in shown


SMALL_STUDY = [*SMALL, *SMALL_LISTOPS]


def test_a_trial_is_not_tested(compose_job: Callable[..., Job], tmp_path: Path) -> None:
    block = "{question: Which, tune: {optimizer.lr: [0.001, 0.01], seeds: [100]}}"
    for seed, tested in ((100, False), (0, True)):
        training.run(compose_job(*SMALL_STUDY, f"+study={block}", f"seed={seed}", directory=tmp_path / str(seed)))
        summary = read_summary(tmp_path / str(seed))
        assert summary.is_trial is not tested
        assert any(name.startswith("test/") for name in summary.metrics) is tested
        assert "val/accuracy" in summary.metrics
        assert summary.tuning == TuningRole(["optimizer.lr"], "val/accuracy", trial=not tested)


def test_a_run_that_diverges_says_so_in_its_summary(compose_job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        training.run(compose_job(*SMALL_STUDY, "optimizer.lr=1e30", "schedule=constant"))
    summary = read_summary(tmp_path / "run")
    assert (summary.status, summary.diverged) == ("failed", True)

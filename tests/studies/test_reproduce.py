"""A committed table against runs made again."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.studies.conftest import MakeRun
from xformer.commands.reproduce import _is_wanted, main
from xformer.errors import ConfigError, DataError, RunError, XformerError
from xformer.runs.recorded_run import RecordedRun, load_runs, read_run
from xformer.studies.committed_runs import read_table
from xformer.studies.record import record_study
from xformer.studies.repeat import repeat_cell
from xformer.studies.reproduce import judge, tolerance
from xformer.studies.study import Study

METRIC = "test/accuracy"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def committed(make_run: MakeRun) -> RecordedRun:
    return read_run(make_run(0.8, seed=0))


def test_a_cell_is_allowed_what_its_own_seeds_show_but_no_more_than_all_of_them(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed, noise in enumerate((-0.01, 0.0, 0.01)):
        make_run(0.8 + noise, seed=seed)
        make_run(0.4 + 20 * noise, seed=seed, attention="local")
    runs = load_runs([tmp_path / "sweep"])
    calm, wild = (next(run for run in runs if run.settings["attention"] == name) for name in ("full", "local"))
    pooled = (2 * 0.01**2 + 2 * 0.2**2) / 4  # variances with 2 degrees of freedom each
    most = stats.t.ppf(0.995, 4) * (2 * pooled) ** 0.5
    own = stats.t.ppf(0.995, 2) * 2**0.5 * 0.01
    assert 0.1 * most < own < most
    assert tolerance(runs, METRIC, calm) == pytest.approx(own)
    assert tolerance(runs, METRIC, wild) == pytest.approx(most)


def test_seeds_of_no_spread_are_allowed_a_tenth_of_the_spread_of_all(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(1.0, seed=seed)
        make_run(0.4 + 0.1 * seed, seed=seed, attention="local")
    runs = load_runs([tmp_path / "sweep"])
    still, other = (next(run for run in runs if run.settings["attention"] == name) for name in ("full", "local"))
    assert tolerance(runs, METRIC, still) == pytest.approx(0.1 * tolerance(runs, METRIC, other))
    assert tolerance(runs, METRIC, replace(still, settings={"of": "no group"})) == tolerance(runs, METRIC, other)


def test_where_spreads_are_equal_elsewhere_fails_a_cell_at_most_2_times_in_100(make_run: MakeRun) -> None:
    """Simulated: four groups of five seeds, and each group's next run."""
    generator = np.random.default_rng(0)
    template = read_run(make_run(0.5, seed=0))
    lost = 0
    for values in (drawn := generator.normal(size=(500, 4, 6))):
        runs = [
            replace(template, settings={"group": group}, summary=replace(template.summary, metrics={METRIC: value}))
            for group, seeds in enumerate(values[:, :5])
            for value in seeds
        ]
        for group in range(4):
            first = runs[5 * group]
            lost += abs(values[group, 5] - values[group, 0]) > tolerance(runs, METRIC, first)
    assert 0 < lost / drawn[:, :, 0].size <= 0.02


def test_one_seed_states_no_tolerance(committed: RecordedRun) -> None:
    with pytest.raises(DataError, match="No cell of the committed table has two seeds"):
        tolerance([committed], METRIC, committed)


OTHER_LOSS = {"val/accuracy": 0.8, "test/accuracy": 0.8, "test/loss": 9.9}


@pytest.mark.parametrize(
    ("other", "word", "reasons"),
    [
        ({}, "pass", "identical in every metric"),
        ({"value": 0.805}, "fail", "every metric should be identical"),
        ({"metrics": OTHER_LOSS}, "fail", "differ: test/loss 0.2 then, 9.9 now. Code, versions and machine are"),
        ({"metrics": OTHER_LOSS, "versions": {"torch": "2.14"}}, "pass", "that differ: test/loss 0.2 then, 9.9 now."),
        ({"tokens_per_second": 1.0, "wall_seconds": 99.0, "peak_memory_bytes": 1}, "pass", "identical in every metric"),
        ({"value": 0.805, "versions": {"torch": "2.14"}}, "pass", "versions: torch 2.13 -> 2.14"),
        ({"value": 0.7}, "fail", "-0.1 from 0.8; allowed is 0.01"),
        ({"value": 0.7, "hardware": {"cpu": "Other", "cores": 4, "torch_threads": 2}}, "fail", "machine: CPU, 2 cores"),
        ({"git": {"commit": "d" * 40, "dirty": True}}, "pass", "cccccccccc then, dddddddddd with changes now"),
        ({"config": {"optimizer": {"lr": 0.01}}}, "changed", "optimizer.lr was 0.001 and is 0.01."),
        ({"data_fingerprint": "g"}, "changed", "fingerprint f then, g now"),
        ({"status": "failed", "error": "NaN."}, "fail", "failed now, finished then: NaN."),
        ({"value": None}, "fail", "0.8 then, None now"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cell_is_judged(other: dict, word: str, reasons: str, committed: RecordedRun, make_run: MakeRun) -> None:
    fields = dict(other)
    repeated = read_run(make_run(fields.pop("value", 0.8), seed=0, **fields))
    verdict = judge(committed, repeated, METRIC, 0.01)
    assert verdict.word == word
    assert reasons in " ".join(verdict.reasons)


def test_code_that_was_not_committed_is_not_known_to_be_the_same(make_run: MakeRun) -> None:
    then, now = (read_run(make_run(v, seed=0, git={"commit": "c" * 40, "dirty": True})) for v in (0.8, 0.805))
    verdict = judge(then, now, METRIC, 0.01)
    assert (verdict.word, verdict.reasons[1]) == (
        "pass",
        "code: cccccccccc with changes then, cccccccccc with changes now.",
    )


@pytest.mark.parametrize(("deterministic", "word"), [(None, "pass"), (True, "fail")])
def test_a_gpu_is_held_to_identity_where_it_was_asked_for(
    deterministic: bool | None, word: str, make_run: MakeRun
) -> None:
    hardware = {"cpu": "CPU", "cores": 2, "torch_threads": 1, "cuda": ["H200"]}
    config = {"trainer": {"deterministic": deterministic}}
    then, now = (read_run(make_run(v, seed=0, hardware=hardware, config=config)) for v in (0.8, 0.805))
    assert judge(then, now, METRIC, 0.01).word == word


def test_a_cell_that_was_refused_passes_when_it_is_refused_again(committed: RecordedRun) -> None:
    summary = replace(committed.summary, status="skipped", metrics={}, error="It cannot.")
    refused = replace(committed, summary=summary, whole=False)
    assert judge(refused, refused, METRIC, 0.01).word == "pass"
    assert judge(refused, committed, METRIC, 0.01).word == "fail"


def test_a_folder_keeps_what_a_person_wrote(sweep: Path, tmp_path: Path) -> None:
    study = Study("attentions", "Which?", "attention=full", METRIC, "1 minute", tmp_path, ("attention",))
    record_study(study, load_runs([sweep]), tmp_path / "study")
    readme = tmp_path / "study" / "README.md"
    assert "attention=linformer: worse than attention=full" in readme.read_text()
    readme.write_text(readme.read_text().replace("worse than", "old") + "\nBecause of the data.\n")
    record_study(study, load_runs([sweep]), tmp_path / "study")
    assert "attention=linformer: worse than attention=full" in readme.read_text()
    assert readme.read_text().endswith("Because of the data.\n")


def test_a_folder_that_cannot_be_written_whole_is_left_alone(sweep: Path, make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    study = Study("attentions", "Which?", "attention=full", METRIC, "1 minute", tmp_path, ("attention",))
    record_study(study, load_runs([sweep]), folder)

    def refused(study: Study, words: str) -> None:
        before = {file: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(XformerError, match=words):
            record_study(study, load_runs([sweep]), folder)
        assert {file: file.read_bytes() for file in folder.iterdir()} == before

    make_run(0.7, seed=3)  # what a table that was written after all would hold
    refused(replace(study, baseline="attention=fool"), "matches no group")
    (folder / "README.md").write_text("All by hand.\n")
    refused(study, "has no place for the findings; add the lines <!-- findings --> and")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"choices": {"attention": "full", "experiment": "recall"}}, "it has experiment=recall"),
        ({"choices": {"attention": "full"}}, "it has experiment=null"),
        ({"overrides": ["attention=full", "optimizer.lr=0.1"]}, "it sets optimizer.lr, which is not in the grid"),
        ({"overrides": ["attention=full", "debug=fast"]}, "it sets debug, which is not in the grid"),
        ({"overrides": ["experiment=attentions", "seed=1", "cache=x", "hydra.sweep.dir=y", "logger=csv"]}, None),
        ({"overrides": ["logger.wandb.project=x", "data.loader.num_workers=2"]}, None),
    ],
)
def test_what_is_no_run_of_the_study_is_not_recorded(
    other: dict, words: str | None, sweep: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(0.9, seed=3, **other)
    study = Study("attentions", "Which?", "attention=full", METRIC, "1 minute", tmp_path, ("attention",))
    if words is None:
        assert record_study(study, load_runs([sweep]), tmp_path / "study")
        return
    with pytest.raises(DataError, match=words):
        record_study(study, load_runs([sweep]), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_cells_that_failed_are_recorded_with_their_reason(sweep: Path, make_run: MakeRun, tmp_path: Path) -> None:
    failed = make_run(None, seed=3, attention="local", status="failed", error="The loss became NaN.")
    refused = make_run(None, seed=0, attention="performer", status="skipped", error="It cannot.")
    (refused / "config.yaml").unlink()
    (make_run(None, seed=4) / "summary.json").unlink()
    study = Study("attentions", "Which?", "attention=full", METRIC, "1 minute", tmp_path, ("attention",))
    record_study(study, load_runs([sweep]), tmp_path / "study")
    told = (tmp_path / "study" / "README.md").read_text()
    ended = {(run.summary.status, run.summary.error) for run in read_table(tmp_path / "study")}
    killed = "It was killed, or is still running."
    expected = {("failed", "The loss became NaN."), ("skipped", "It cannot."), ("running", killed)}
    assert ended == {("finished", None), *expected}
    assert all(f"{status}: {error}" in told for status, error in expected)
    assert str(failed) in told


def test_a_cell_that_was_run_twice_is_recorded_once_by_its_latest_finished_run(
    sweep: Path, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = {"overrides": ["attention=full", "seed=3", "logger=wandb"]}
    latest, stopped = make_run(0.7, seed=3, **typed), make_run(None, seed=3, status="failed", error="NaN.")
    earlier = make_run(0.75, seed=3)
    os.utime(earlier / "summary.json", (0, 0))
    study = Study("attentions", "Which?", "attention=full", METRIC, "1 minute", tmp_path, ("attention",))
    record_study(study, load_runs([sweep]), tmp_path / "study")
    repeated = [run for run in read_table(tmp_path / "study") if run.seed == 3]
    assert [(run.name, run.value(METRIC)) for run in repeated] == [("study/attention=full,seed=3", 0.7)]
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{path} is left out: {latest} is a run of the same cell." for path in (stopped, earlier)]


def test_the_grid_is_that_of_the_file() -> None:
    assert Study.of("listops_attentions").grid == ("attention", "seed")


@pytest.mark.slow
def test_a_launch_that_fails_does_not_pass_for_the_run_that_lies_there(
    committed: RecordedRun, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(make_run(0.8, seed=0), tmp_path / "again" / Path(committed.name).name / "run")
    with pytest.raises(RunError, match=r"did not start or was killed; see .*screen\.log"):
        repeat_cell(committed, tmp_path / "again", ["no_such_key=1"])


def reproduced(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit code of `xformer reproduce`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "argv", ["reproduce", "retrieval_attentions", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_directory_that_is_a_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.* cannot be written: Not a directory; name another with --directory"):
        reproduced(monkeypatch, "--seeds", "0", "--cells", "attention=full", "--directory", str(tmp_path / "file"))


@pytest.mark.slow
def test_a_cell_that_does_not_start_fails_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduced(monkeypatch, "no_such_key=1", "--seeds", "0", "--directory", str(tmp_path)) == 1
    _, *cells, last = capsys.readouterr().out.splitlines()
    assert [line.startswith("fail ") and "did not start" in line for line in cells] == [True, True]
    assert last == "2 fail"


MINI = """# @package _global_
defaults:
  - override /logger: csv
  - override /size: tiny
study:
  question: Does it?
  expected: seconds
skip_finished: true
data:
  generation:
    train_size: 200
    val_size: 64
    test_size: 64
optimizer:
  lr: 0.002
trainer:
  accelerator: cpu
  max_steps: 5
  val_check_interval: 5
hydra:
  mode: MULTIRUN
  sweep:
    dir: outputs/studies/mini
    subdir: ${cell:${hydra.job.override_dirname}}
  sweeper:
    params:
      attention: full
      seed: 0,1
"""


@pytest.mark.slow
def test_a_study_is_reproduced_and_a_hyper_parameter_changed_by_hand_is_loud(tmp_path: Path, cache: Path) -> None:
    """From a clone of its own, by the commands that a person types."""
    clone = tmp_path / "clone"
    for name in ("conf", "experiments", "xformer"):
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", clone)
    (clone / ".gitignore").write_text("outputs/\n__pycache__/\n")
    (clone / "experiments" / "mini.yaml").write_text(MINI)
    environment = {**os.environ, "PYTHONPATH": str(clone), "XFORMER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def start(*words: str) -> tuple[int, str]:
        done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def reproduce(directory: str) -> tuple[int, str]:
        return start(sys.executable, "-m", "xformer.cli", "reproduce", "mini", "--seeds", "0", "--directory", directory)

    def edit(file: str, before: str, after: str) -> None:
        text = (clone / file).read_text()
        assert text.count(before) == 1
        (clone / file).write_text(text.replace(before, after))

    me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*me, "commit", "-qm", "The study")):
        assert start("git", *words)[0] == 0
    for words in (("train.py", "experiment=mini"), ("-m", "xformer.cli", "record", "mini")):
        code, shown = start(sys.executable, *words)
        assert code == 0, shown
    code, shown = reproduce("again")
    assert (code, "identical" in shown, "not run again" in shown) == (0, True, False), shown
    code, shown = reproduce("again")
    assert (code, "not run again: finished earlier in" in shown) == (0, True), shown
    edit("experiments/mini.yaml", "lr: 0.002", "lr: 0.003")
    edit("conf/optimizer/adamw.yaml", "weight_decay: 0.01", "weight_decay: 0.02")
    code, shown = reproduce("changed in the study and in a default")
    assert code == 1
    assert re.search(r"optimizer\.lr was 0\.002 and is 0\.003[;.]", shown)
    assert re.search(r"optimizer\.weight_decay was 0\.01 and is 0\.02[;.]", shown)
    assert re.search(r"code: (\w{10}) then, \1 with changes now\.", shown)
    assert "1 changed" in shown


@pytest.mark.parametrize(
    "cells", ["attention=hybrid(local(window=2)+full)", "attention=hybrid(local(window=2)+full),size.layers=4"]
)
def test_cells_of_hybrids_are_named_as_in_the_table(cells: str) -> None:
    runs = Study.of("hybrid_recall").committed()
    found = [run for run in runs if _is_wanted(run, cells, "0,2")]
    assert [run.seed for run in found] == [0, 2]
    assert all("full" in str(run.settings["attention.layers"]) for run in found)

"""The command line as a user meets it: sentences, exit codes, sweeps."""

import argparse
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, Command, ComposeJob
from xformer import cli, commands
from xformer.config.groups import groups
from xformer.errors import ConfigError
from xformer.runs.metrics_table import read_metrics, series
from xformer.runs.summary import read_summary
from xformer.training.run import run

ROOT = Path(__file__).parents[1]
FAST = [*SMALL, *SMALL_LISTOPS]


@pytest.fixture
def train(tmp_path: Path, cache: Path):
    def call(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *overrides, f"cache={cache}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=1500,
            env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", **environment},
        )

    return call


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cache: Path):
    """The same without a process of its own, for what stops before training: (exit code, standard error)."""

    def call(*overrides: str, directory: Path = tmp_path / "run") -> tuple[int, str]:
        where = f"hydra.run.dir={directory}"
        monkeypatch.setattr(sys, "argv", ["train.py", where, f"cache={cache}", *overrides])
        monkeypatch.setenv("COLUMNS", "80")
        for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):  # set by the command for its own children
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        with pytest.raises(SystemExit) as caught:
            cli.train()
        GlobalHydra.instance().clear()
        return caught.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attention=linformer", "task=language_modeling"], ["attention=linformer does not go with", "attention=full"]),
        (["attention=linfomer"], ["attention=linfomer is not an option", "did you mean linformer?"]),
        (["optimizer.lrr=1"], ["optimizer.lrr is not a key", "did you mean optimizer.lr?"]),
        (["optimizer.lr=fast"], ["optimizer.lr=fast has the wrong type", "float"]),
        (["atention=full"], ["atention is not a key", "did you mean attention?"]),
        (["+atention=full"], ["atention is not a key", "did you mean attention?"]),
        (
            ["data.source.files=outputs/a=b/x.txt"],
            ["data.source.files=outputs/a=b/x.txt", "'data.source.files=\"outputs/a=b/x.txt\"'"],
        ),
        (["data.betas=[1,2"], ["data.betas=[1,2 cannot be read"]),
        (["attention full"], ["attention full is not an override", "key=value"]),
        (["threads=0"], ["threads=0 must be at least 1, or auto"]),
        (["size.d_model=130"], ["size.d_model=130 is not divisible by size.heads=4", "128 or 132"]),
        (["task=language_modeling", "data.source.files=/no/such/file.txt"], ["data.source.files=/no/such/file.txt"]),
        (["max_steps=10"], ["max_steps is not a key", "did you mean trainer.max_steps?"]),
        (["model.attention=full"], ["model.attention is not a key", "did you mean attention"]),
        (["attention=full,linformer"], ["names several values", "-m attention=full,linformer"]),
        (["attention=[full,local]"], ["attention takes one option and not several", "-m attention="]),
        (["data=null"], ["data=null is not an option", "listops"]),
        (["~optimizer"], ["optimizer has no option", "optimizer=adamw"]),
        (["size.d_model=${nope}"], ["size.d_model cannot be resolved", "nope"]),
        (["cache=${nope}"], ["cache", "nope"]),
        (["cache=null"], ["cache=null has the wrong type"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan must be a finite number"]),
        (["monitor.name=val/nothing"], ["monitor.name=val/nothing", "val/loss"]),
        (["trainer.accelerator=quantum"], ["trainer.accelerator=quantum", "cpu"]),
        (["trainer.devices=999", "trainer.accelerator=cpu"], ["trainer.devices=999", "cores"]),
        (["trainer.barebones=true"], ["trainer.barebones=true", "trainer.barebones=false"]),
        (["data.source.files=" + "n" * 300, "task=language_modeling"], ["cannot be used: the name is too long"]),
        (["init_from=" + "n" * 300], ["cannot be used: the name is too long"]),
        (["experiment=shakespear"], ["experiment=shakespear is not an option", "did you mean shakespeare?"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_a_mistake_is_one_sentence_and_a_bad_exit_code(in_process, overrides: list[str], words: list[str]) -> None:
    code, shown = in_process(*overrides)
    assert code == 1
    assert len(shown.strip().splitlines()) == 1
    assert shown.startswith("error: ")
    for word in words:
        assert word in shown


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file", "it is a file"),
        ("file/below", "a part of the path is a file"),
        ("n" * 300, "the name is too long"),
    ],
)
def test_a_run_directory_that_cannot_be_is_refused_in_a_sentence(
    in_process, place: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("somebody's")
    code, shown = in_process(*FAST, directory=tmp_path / place)
    assert code == 1
    assert len(shown.strip().splitlines()) == 1
    assert words in shown
    assert (tmp_path / "file").read_text() == "somebody's"


def test_without_checkpoints_a_run_is_measured_all_the_same(compose_job: ComposeJob, tmp_path: Path) -> None:
    run(compose_job(*FAST, "trainer.enable_checkpointing=false", directory=tmp_path))
    summary = read_summary(tmp_path)
    assert summary.status == "finished"
    assert summary.monitor is not None
    assert summary.monitor.best is not None
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_an_empty_file_is_refused(in_process, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    code, shown = in_process("task=language_modeling", f"data.source.files={tmp_path / 'empty.txt'}")
    assert code == 1
    assert "empty.txt" in shown
    assert "Traceback" not in shown


def test_an_error_is_raised_and_not_told_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks for a full error gets its traceback."""
    monkeypatch.setattr(sys, "argv", ["train.py", f"hydra.run.dir={tmp_path / 'run'}", "size.d_model=130"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("XFORMER_WRAPPED", raising=False)
    with pytest.raises(ConfigError, match=r"^size\.d_model=130"):
        cli.train()
    GlobalHydra.instance().clear()
    assert "error:" not in capsys.readouterr().err


def test_help_lists_every_group_with_its_options(train) -> None:
    shown = train("--help").stdout
    for group, options in groups().items():
        assert f"{group}: {', '.join(options)}" in shown
    for group in ("launcher", "sweeper"):
        line = next(line for line in shown.splitlines() if line.startswith(f"hydra/{group}:"))
        for file in (ROOT / "conf" / "hydra" / group).glob("*.yaml"):
            assert file.stem in line


def test_a_sweep_makes_separate_runs_and_survives_a_failing_job(
    xformer: Command, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    overrides = [o for o in FAST if o != "logger=csv"]
    sweep = tmp_path / "sweep"
    code, _, told = xformer(
        "train", "-m", *overrides, "logger=wandb", "trainer.max_steps=2", "trainer.val_check_interval=2",
        "task.pooling=class,mean", "architecture=encoder,decoder",
        f"cache={cache}", f"hydra.sweep.dir={sweep}",
    )  # fmt: skip
    assert code == 1
    assert "Traceback" not in told
    summaries = [read_summary(folder) for folder in sorted(sweep.glob("[0-9]"))]
    assert len(summaries) == 4
    refused = [s for s in summaries if s.choices["architecture"] == "decoder" and "task.pooling=class" in s.overrides]
    assert [s.status for s in summaries].count("finished") == 3
    assert all(s.status == "failed" for s in refused)
    assert len(refused) == 1
    for summary in refused:
        assert summary.error is not None
        assert summary.error in " ".join(told.split())
    runs = {file.name for file in sweep.glob("[0-9]/wandb/offline-run-*/run-*.wandb")}
    assert len(runs) == 3


@pytest.mark.slow
def test_glob_runs_every_committed_experiment_in_a_sweep(train, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    # The Long Range Arena has tests/test_lra.py, and shakespeare_gpu a test of its own.
    result = train("-m", "experiment=glob(*,exclude=[lra_*,*_gpu])", *SMALL, f"hydra.sweep.dir={sweep}")
    assert result.returncode == 0, result.stderr
    summaries = [read_summary(file.parent) for file in sweep.rglob("summary.json")]  # studies name their cells
    others = {name for name in groups()["experiment"] if not (name.startswith("lra_") or name.endswith("_gpu"))}
    assert {s.choices["experiment"] for s in summaries} == others
    assert all(s.status == "finished" for s in summaries)


@pytest.mark.slow
def test_local_launcher_runs_jobs_in_processes_of_their_own(train, tmp_path: Path) -> None:
    result = train("-m", *FAST, "hydra/launcher=local", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert result.returncode == 0, result.stderr
    assert {read_summary(folder).seed for folder in (tmp_path / "sweep").glob("[0-9]")} == {0, 1}


TEXT = ["data.block=32", "data.loader.batch_size=6", "data.stride=24", "data.split.test_fraction=0.01"]


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "best"), [([], max), (["task=language_modeling", *TEXT], min)], ids=["max", "min"])
def test_search_sweeper_finds_the_best_of_what_is_monitored(
    chosen: list[str], best: Callable[[list[float]], float], train, tmp_path: Path
) -> None:
    small = SMALL if chosen else FAST
    result = train(
        "-m", *small, *chosen, "hydra/sweeper=search", "hydra.sweeper.n_trials=2",
        "optimizer.lr=interval(0.0001,0.01)", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    reached = [read_summary(tmp_path / "sweep" / str(trial)).monitor.best for trial in range(2)]
    found = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert found.best_value == pytest.approx(best(reached))


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        ["data=digits"],
        ["task=language_modeling", *TEXT],
        ["task=masked_language_modeling", *TEXT],
    ],
    ids=lambda chosen: chosen[0],
)
def test_two_processes_follow_the_same_curve_as_one(
    chosen: list[str], train, compose_job: ComposeJob, tmp_path: Path
) -> None:
    setting = [*SMALL, *chosen, "architecture.dropout=0.0"]
    run(compose_job(*setting, directory=tmp_path / "one"))
    result = train(*setting, "trainer.strategy=ddp", "trainer.devices=2", f"hydra.run.dir={tmp_path / 'two'}")
    assert result.returncode == 0, result.stderr
    curves = {}
    for name in ("one", "two"):
        assert read_summary(tmp_path / name).status == "finished"
        curves[name] = series(read_metrics(tmp_path / name / "metrics.csv"))
    counts = {"train/loss": 5, "train/accuracy": 5, "val/loss": 1, "test/loss": 1, "test/perplexity": 1}
    for metric, points in ((name, count) for name, count in counts.items() if name in curves["one"]):
        one, two = curves["one"][metric], curves["two"][metric]
        assert len(one) == len(two) == points
        assert two == [(step, pytest.approx(value, rel=1e-5, abs=1e-5)) for step, value in one]


@pytest.mark.slow
@pytest.mark.slow
def test_a_launch_of_another_world_size_is_refused_on_every_rank(train) -> None:
    for rank in ("0", "1"):
        result = train(*FAST, WORLD_SIZE="2", RANK=rank, LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
        assert result.returncode == 1
        assert "WORLD_SIZE=2" in result.stderr
        assert "trainer.strategy=ddp" in result.stderr


def test_ddp_in_a_sweep_is_refused(xformer: Command, tmp_path: Path) -> None:
    where = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    code, _, told = xformer("train", "-m", *FAST, "trainer.strategy=ddp", "trainer.devices=2", "seed=0,1", where)
    assert code == 1
    assert "would start the whole sweep again" in " ".join(told.split())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_learns_the_same(train, tmp_path: Path) -> None:
    for name in ("false", "true"):
        setting = ["architecture.dropout=0.0", f"compile={name}", f"hydra.run.dir={tmp_path / name}"]
        result = train(*FAST, *setting)
        assert result.returncode == 0, result.stderr
    eager, compiled = (read_summary(tmp_path / name) for name in ("false", "true"))
    assert compiled.metrics["test/loss"] == pytest.approx(eager.metrics["test/loss"], rel=1e-4)
    keys = torch.load(tmp_path / "true" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in key for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["full", "linformer"])
def test_the_default_run_ends_above_both_trivial_baselines(train, attention: str, tmp_path: Path) -> None:
    result = train(f"attention={attention}", f"hydra.run.dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    summary = read_summary(tmp_path / "run")
    assert summary.metrics["test/accuracy"] > max(summary.trivial_baselines.values()) + 0.05


@pytest.mark.parametrize("command", [module.name for module in pkgutil.iter_modules(commands.__path__)])
def test_only_what_has_to_be_typed_is_named_as_missing(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsers: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser) -> None:
        parsers.append(parser)
        raise SystemExit

    for method in ("parse_args", "parse_intermixed_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, method, stop)
    if command != "train":  # Hydra reads its command line
        with suppress(SystemExit):
            import_module(f"xformer.commands.{command}").main()
    for parser in parsers:
        positional = parser._positionals._group_actions
        for action in positional[1:]:  # argparse matches nothing to the first, and stops at the first that is missing
            may_be_left_out = action.nargs in ("?", "*", argparse.REMAINDER)
            assert not (action.required and may_be_left_out), f"{command}: {action.dest}"

"""Runs on W&B's service are what their run directories are."""

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.studies.conftest import MakeRun
from tests.studies.service import Remote, Service, of_directory
from xformer import cli
from xformer.errors import DataError
from xformer.runs.recorded_run import load_runs
from xformer.studies import wandb_runs
from xformer.studies.comparison import compare
from xformer.studies.output_formats import FORMATS
from xformer.studies.wandb_runs import load_wandb, load_wandb_run


@pytest.fixture(autouse=True)
def _with_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(wandb_runs, "has_key", lambda: True)


@pytest.fixture
def service(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The sweep of three attentions in `me/lab`, group `study`, and beside it what is none of ours."""
    directories = sorted(sweep.iterdir())
    remotes = [of_directory(f"me/lab/{directory.name}", directory, "study") for directory in directories]
    foreign = Remote("me/lab/foreign", {"config": {"lr": 1}, "summaryMetrics": {}, "state": "finished"}, [])
    found = Service(*remotes, foreign)
    monkeypatch.setattr(wandb, "Api", found)
    return found


def _logged(status: str, config: dict[str, Any], summary: dict[str, Any], tags: list[str]) -> Remote:
    return Remote("me/lab/1", {"config": config, "summaryMetrics": summary, "state": status, "tags": tags}, [])


@pytest.mark.parametrize("path", ["me/lab", "me/lab/study"])
def test_a_comparison_is_that_of_the_run_directories(path: str, service: Service, sweep: Path) -> None:
    here, there = (FORMATS["csv"](compare(runs)) for runs in (load_runs([sweep]), load_wandb(path)))
    assert there == here


def test_a_failed_run_is_told_with_its_reason(service: Service, make_run: MakeRun) -> None:
    failed = make_run(None, seed=3, attention="local", status="failed", error="The loss became NaN.")
    killed = of_directory("me/lab/killed", make_run(None, seed=4), "study")
    killed._attrs["summaryMetrics"] = {"train/loss": 1.0}
    killed._state = "crashed"
    service.remotes += [of_directory("me/lab/failed", failed, "study"), killed]
    assert compare(load_wandb("me/lab/study")).left_out == {
        "me/lab/failed": "failed: The loss became NaN.",
        "me/lab/killed": "failed: The run has no summary; its state on W&B is crashed.",
    }


def test_a_killed_run_is_known_from_how_it_began(service: Service, make_run: MakeRun) -> None:
    directory = make_run(None, seed=4, attention="linformer")
    remote = of_directory("me/lab/killed", directory)
    remote._attrs["summaryMetrics"], remote._state = {}, "killed"
    service.remotes.append(remote)
    run = load_wandb_run("me/lab/killed")
    (whole,) = load_runs([directory])
    assert (run.settings, run.seed, run.group) == (whole.settings, 4, None)
    for key in ("choices", "overrides", "git", "versions"):
        assert getattr(run.summary, key) == getattr(whole.summary, key)


def test_a_run_logged_before_its_record_was_is_read_from_nodes_and_tags() -> None:
    config = {"seed": 2, "optimizer": {"lr": 0.1}, "monitor": {"name": "val/loss", "mode": "min"}}
    numbers = {"test/loss": 0.5, "val/loss": "NaN", "_runtime": 9, "tokens": 5}
    run = wandb_runs._run("me/lab", _logged("finished", config, numbers, ["attention=full", "mine"]))
    assert run.settings == {"attention": "full", "optimizer.lr": 0.1, "monitor.name": "val/loss", "monitor.mode": "min"}
    assert (run.summary.status, run.seed, run.summary.metrics) == ("finished", 2, {"test/loss": 0.5})
    assert (run.summary.wall_seconds, run.summary.tokens_seen) == (9, 5)


def test_a_report_has_the_curves(
    service: Service, tmp_path: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, folder in ((["--wandb", "me/lab/study"], "there"), ([str(sweep)], "here")):
        figures = ["--figures", str(tmp_path / folder)]
        monkeypatch.setattr(sys, "argv", ["xformer", "report", *words, "-o", str(tmp_path / "page.html"), *figures])
        cli.main()
    for name in ("curves.svg", "cost.svg"):
        assert (tmp_path / "there" / name).read_text() == (tmp_path / "here" / name).read_text()


def test_the_command_compares(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["xformer", "compare", "--wandb", "me/lab/study", "--format", "markdown"])
    cli.main()
    assert "attention=linformer: worse than attention=full" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("me", "is not a project; write entity/project"),
        ("me/lab/a/b", "is not a project"),
        ("me/lab/other", "contains no run of train.py"),
        ("me/nothing", r"cannot be reached on Weights & Biases \(Could not find project me/nothing\)"),
    ],
)
def test_what_is_not_there_is_a_sentence(path: str, words: str, service: Service) -> None:
    with pytest.raises(DataError, match=words):
        load_wandb(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("me/lab", "is not a run; write entity/project/run_id"),
        ("me/lab/foreign", "its config has no seed"),
        ("me/lab/99", r"cannot be reached on Weights & Biases \(Could not find run .*99"),
    ],
)
def test_a_run_that_is_not_there_is_a_sentence(path: str, words: str, service: Service) -> None:
    with pytest.raises(DataError, match=words):
        load_wandb_run(path)


def test_without_a_key_or_a_network_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(timeout: int) -> None:
        raise wandb.errors.CommError("Failed to verify credentials.\nand more")

    monkeypatch.setattr(wandb, "Api", unreachable)
    with pytest.raises(DataError, match=r"\(Failed to verify credentials\)\. Run directories hold the same"):
        load_wandb("me/lab")
    monkeypatch.setattr(wandb_runs, "has_key", lambda: False)
    with pytest.raises(DataError, match="needs a key: wandb login, or WANDB_API_KEY"):
        load_wandb("me/lab")

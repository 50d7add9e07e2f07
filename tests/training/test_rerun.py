"""A run again from its resolved configuration."""

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from tests.studies.service import Service, of_file, offline_file
from xformer import cli
from xformer.config.redact import resolved_config
from xformer.errors import ConfigError
from xformer.runs.recorded_run import read_run
from xformer.studies import wandb_runs
from xformer.training import rerun
from xformer.training.run import run

FAST = [*SMALL, *SMALL_LISTOPS]


@pytest.fixture
def as_asked(compose_job: ComposeJob, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a run would log, and a function that turns it into the job that `asked` makes of it."""
    monkeypatch.setenv("XFORMER_CACHE", str(cache))
    job = compose_job(*FAST, "attention=linformer", "attention.rank=8", "seed=3", directory=tmp_path / "first")
    config = resolved_config(job.config)

    def asked(*overrides: str) -> Any:
        rerun.write_rerun(tmp_path, config, job.choices, job.overrides, str(job.directory), overrides)
        return rerun.read_rerun(tmp_path)

    return job, config, asked


def test_a_configuration_alone_gives_the_same_run_somewhere_else(as_asked: Any, tmp_path: Path) -> None:
    job, _, asked = as_asked
    run(job)
    first = read_run(job.directory)
    again = asked()
    run(again)
    second = read_run(again.directory)
    assert (second.settings, second.summary.metrics) == (first.settings, first.summary.metrics)
    assert second.summary.overrides == first.summary.overrides
    assert again.directory != job.directory
    assert str(job.directory) not in (again.directory / "config.yaml").read_text()


def test_what_is_typed_wins_over_what_was_logged(as_asked: Any) -> None:
    assert as_asked[2]("optimizer.lr=0.5", "cache=/elsewhere").config.optimizer.lr == 0.5


def test_a_configuration_builds_nothing_but_what_is_an_option_here(as_asked: Any) -> None:
    _, config, asked = as_asked
    config["callbacks"]["mine"] = {"_target_": "os.system", "command": "true"}
    with pytest.raises(ConfigError, match=r"rerun\.json: _target_=os\.system is not of an option"):
        asked()
    config["callbacks"]["mine"] = "${oc.create:{_target_:os.system,command:x}}"
    with pytest.raises(ConfigError, match=r"_target_=os\.system is not of an option"):
        asked()


@pytest.mark.slow
def test_a_logged_run_is_reproduced_and_a_change_is_loud(
    compose_job: ComposeJob, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "XFORMER_CACHE": str(cache)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    fast = ["experiment=listops_attentions", *FAST, "logger=wandb", "trainer.limit_train_batches=1.0"]
    for seed in (0, 1):
        run(compose_job(*fast, f"seed={seed}", directory=tmp_path / str(seed)))
    remotes = [of_file("me", offline_file(tmp_path / str(seed))) for seed in (0, 1)]
    monkeypatch.setattr(wandb, "Api", Service(*remotes))
    monkeypatch.setattr(wandb_runs, "has_key", lambda: True)

    def reproduce(directory: str, *overrides: str) -> tuple[int, str]:
        path = "/".join(remotes[0].path)
        words = ["reproduce", "--wandb", path, "--directory", str(tmp_path / directory), *overrides]
        monkeypatch.setattr(sys, "argv", ["xformer", *words])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as error:
            return int(str(error.code)), capsys.readouterr().out
        return 0, capsys.readouterr().out

    code, shown = reproduce("again")
    assert code == 0, shown
    assert "(99 % of two seeds" in shown
    assert "identical" in shown
    code, shown = reproduce("changed", "optimizer.lr=0.5")
    assert code == 1
    assert "optimizer.lr was 0.001 and is 0.5." in shown
    remotes[0].summary_metrics["xformer"]["metrics"]["test/accuracy"] += 0.01
    remotes[0].summary_metrics["xformer"]["git"]["commit"] = "c" * 40
    remotes[0]._attrs["group"] = None
    code, shown = reproduce("again")
    assert code == 1
    assert "identical: its group has no other seeds" in shown
    assert "fail" in shown
    assert "The run used commit cccc" in shown
    assert "not run again: finished earlier in" in shown

"""However a run ends, its summary says so."""

import errno
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from tests.studies.service import offline_file, records
from xformer.errors import ConfigError, IncompatibleError, Interrupted, RunError
from xformer.loggers.base import RunLogger
from xformer.runs.summary import Summary, read_summary
from xformer.training.run import run
from xformer.training.run_record import interruption, record_run

FAST = [*SMALL, *SMALL_LISTOPS]


def test_a_failed_run_says_so(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, "optimizer.lr=1e20", "trainer.max_steps=50", "trainer.gradient_clip_val=null")
    with pytest.raises(RunError, match="loss"):
        run(job)
    summary = read_summary(job.directory)
    assert summary.status == "failed"
    assert summary.error is not None
    assert "loss" in summary.error


def test_an_incompatible_run_fails_or_is_skipped(compose_job: ComposeJob, tmp_path: Path) -> None:
    choices = [*SMALL, "task=language_modeling", "attention=linformer"]
    job = compose_job(*choices, directory=tmp_path / "fail")
    with pytest.raises(IncompatibleError):
        run(job)
    assert read_summary(job.directory).status == "failed"
    job = compose_job(*choices, "on_incompatible=skip", directory=tmp_path / "skip")
    assert run(job) is None
    summary = read_summary(job.directory)
    assert summary.status == "skipped"
    assert "mixes all positions" in (summary.error or "")


def exits(cause: BaseException | None) -> SystemExit:
    """What Lightning makes of Ctrl-C."""
    try:
        try:
            raise cause or ValueError
        except BaseException:
            sys.exit(1)
    except SystemExit as error:
        return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (Interrupted(signal.SIGUSR1), signal.SIGUSR1),
        (SIGTERMException(), signal.SIGTERM),
        (KeyboardInterrupt(), signal.SIGINT),
        (exits(KeyboardInterrupt()), signal.SIGINT),
        (exits(None), None),
        (SystemExit(0), None),
        (ValueError(), None),
        (None, None),
    ],
)
def test_a_signal_is_known_by_what_it_raises(error: BaseException | None, number: signal.Signals | None) -> None:
    found = interruption(error)
    assert (found.signal if found else None) == number


@pytest.mark.parametrize(
    ("error", "status", "raised", "said"),
    [
        (None, "finished", None, None),
        (RunError("Broken."), "failed", RunError, "Broken."),
        (ZeroDivisionError("by zero"), "failed", ZeroDivisionError, "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "interrupted", KeyboardInterrupt, "Stopped by Ctrl-C."),
        (SIGTERMException(), "interrupted", Interrupted, "Stopped by SIGTERM."),
    ],
    ids=str,
)
def test_however_a_run_ends_its_summary_says_so_and_nobody_holds_its_directory(
    error: BaseException | None, status: str, raised: type | None, said: str | None,
    compose_job: ComposeJob, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    job = compose_job(*FAST, "seed=5")
    with pytest.raises(raised) if raised else nullcontext(), record_run(job) as record:
        record.claim()
        assert read_summary(job.directory).status == "running"
        if error is not None:
            raise error
    summary = read_summary(job.directory)
    assert (summary.status, summary.error, summary.seed) == (status, said, 5)
    assert summary.wall_seconds > 0  # type: ignore[operator]
    assert summary.versions["torch"] == torch.__version__
    assert ("Nothing was saved yet." in capsys.readouterr().out) == (status == "interrupted")
    with record_run(job) as record:
        record.acquire()


def test_what_was_refused_before_it_had_the_directory_leaves_a_run_that_lies_there_alone(
    compose_job: ComposeJob,
) -> None:
    job = compose_job(*FAST)
    with record_run(job) as record:
        record.claim()
        record.summary.parameters = 17
    with pytest.raises(RunError), record_run(job):
        raise RunError("Refused.")
    assert read_summary(job.directory).parameters == 17


def exits_on_wandb(directory: Path) -> list[dict[str, Any]]:
    return [record["exit"] for record in records(offline_file(directory)) if record["type"] == "exit"]


WATCHED = [*(word for word in FAST if word != "logger=csv"), "logger=[wandb,tensorboard]"]


def test_a_logger_that_does_not_start_fails_the_run_that_an_earlier_one_began(
    compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("xformer.loggers.tensorboard.TensorBoardRunLogger", missing)
    job = compose_job(*WATCHED)
    with pytest.raises(ConfigError, match="logger=tensorboard"):
        run(job)
    assert wandb.run is None
    assert [found["exit_code"] for found in exits_on_wandb(job.directory)] == [1]


def test_loggers_end_as_failed_where_the_summary_cannot_be_written_and_all_of_them_end(
    compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, int]] = []

    class Ending(DummyLogger, RunLogger):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.called = name

        def end(self, exit_code: int, summary: Summary | None = None) -> None:
            ended.append((self.called, exit_code))
            raise ZeroDivisionError

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xformer.training.run_record.write_summary", full)
    with pytest.raises(ZeroDivisionError), record_run(compose_job(*FAST)) as record:
        record.loggers += [Ending("one"), Ending("two")]
    assert ended == [("one", 1), ("two", 1)]

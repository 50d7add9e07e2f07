"""How a run ends stands in its summary."""

from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.errors import IncompatibleError, RunError
from xformer.runs.summary import read_summary
from xformer.training.run import run

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

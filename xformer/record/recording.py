"""Keeps a run's summary whatever happens, and writes it at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xformer import console
from xformer.errors import IncompatibleError, Interrupted, XformerError
from xformer.job import Job
from xformer.launch import is_main_process
from xformer.logging.wandb import finish
from xformer.record.memory import PeakMemory
from xformer.record.provenance import git_state, hardware, package_versions
from xformer.record.summary import Summary, write_summary


@contextmanager
def recording(job: Job) -> Iterator[Summary]:
    """Yield a summary to fill; leaving the block writes it and ends the loggers with the right exit code.

    A combination that is refused ends as `skipped` where `on_incompatible=skip`, and every other error as `failed`.

    Raises:
        Exception: whatever the block raised, but for a skipped combination.
        Interrupted: a signal stopped the run.
    """
    started, memory, exit_code = time.perf_counter(), PeakMemory(), 1
    memory.reset()
    summary = Summary(status="failed", choices=job.choices, overrides=job.overrides, seed=job.config.get("seed"))
    summary.git, summary.versions = dict(git_state(Path(__file__).parent)), package_versions()
    summary.hardware = dict(hardware())
    try:
        yield summary
        summary.status, exit_code = "finished", 0
    except IncompatibleError as error:
        summary.error = str(error)
        if job.config.get("on_incompatible") != "skip":
            _tell(error, job)
            raise
        summary.status, exit_code = "skipped", 0
        console.note(f"Skipped: {error}")
    except XformerError as error:
        summary.error = str(error)
        _tell(error, job)
        raise
    except Interrupted as error:
        summary.status, summary.error, exit_code = "interrupted", str(error), int(error.code or 0)
        raise
    except BaseException as error:
        summary.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        summary.peak_memory_bytes = memory.bytes()
        summary.wall_seconds = (summary.wall_seconds or 0.0) + time.perf_counter() - started
        if is_main_process():
            write_summary(job.directory, summary)
        finish(exit_code, summary)


def _tell(error: XformerError, job: Job) -> None:
    """In a sweep, say at once which job failed; Hydra would show the first failure alone, after the last job."""
    if job.sweep:
        console.error(f"{job.name}: {error}")
        error.told = True

"""The record of a run: its summary, written when it starts and when it ends, is interrupted or fails."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf

from xformer.config.redact import RedactingFormatter
from xformer.core import console
from xformer.core.devices import is_main_process
from xformer.core.program import train_command
from xformer.errors import DivergedError, IncompatibleError, Interrupted, XformerError
from xformer.loggers.base import RunLogger
from xformer.runs import checkpoints
from xformer.runs.git_state import git_state
from xformer.runs.job import Job
from xformer.runs.lock import RunLock, is_empty
from xformer.runs.provenance import hardware, package_versions
from xformer.runs.summary import Summary, write_summary
from xformer.training.memory import PeakMemory

LOG_FILE = "train.log"
_LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"


class RunRecord:
    """A run's summary and the lock on its directory; only the first process writes.

    Args:
        job: the run.

    Attributes:
        summary: the summary, filled during the run.
        loggers: the loggers to end with the run; add each one as soon as it has begun.
    """

    def __init__(self, job: Job) -> None:
        seed = OmegaConf.select(job.config, "seed", throw_on_resolution_failure=False)  # not validated yet
        seed = seed if type(seed) is int else None
        self.summary = Summary("failed", choices=job.choices, overrides=job.overrides, seed=seed)
        self.summary.started_in = str(Path.cwd())
        self.loggers: list[RunLogger] = []
        self._directory = job.directory
        self._lock = RunLock(job.directory)
        self._log: logging.Handler | None = None

    def acquire(self) -> None:
        """Lock the directory against other processes; no file in it is changed.

        Raises:
            RunError: another process has it.
        """
        if is_main_process():
            self._lock.acquire()

    def claim(self) -> None:
        """Take over the directory for this run, and write the summary with the status `running`.

        Raises:
            RunError: another process has it, or it cannot be written.
        """
        if not is_main_process():
            return
        self._lock.claim()
        if self._log is None:
            self._log = logging.FileHandler(self._directory / LOG_FILE, encoding="utf-8", delay=True)
            self._log.setFormatter(RedactingFormatter(_LOG_FORMAT))
            logging.getLogger().addHandler(self._log)
        self.summary.status = "running"
        write_summary(self._directory, self.summary)

    def close(self, exit_code: int) -> None:
        """Write the final summary, release the lock and end the loggers.

        A run that was refused before it took over the directory writes its summary only if the directory is empty.

        Args:
            exit_code: 0 for a run that finished or was skipped.
        """
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
        try:
            if is_main_process() and (self._lock.claimed or is_empty(self._directory)):
                write_summary(self._directory, self.summary)
        except BaseException:
            exit_code = 1
            raise
        finally:
            self._lock.release()
            with ExitStack() as ending:  # end all of them, even if one fails
                for logger in reversed(self.loggers):
                    ending.callback(logger.end, exit_code, self.summary)


@contextmanager
def record_run(job: Job) -> Iterator[RunRecord]:
    """A context that records a run: it closes the record and ends the loggers with the right exit code.

    A refused combination ends as `skipped` with `on_incompatible=skip`, a run stopped by a signal as `interrupted`, and
    any other error as `failed`.

    Raises:
        Exception: any exception of the block, except for a skipped combination.
        SystemExit: 143 after a SIGTERM, which Lightning would turn into success.
    """
    started, memory, exit_code = time.perf_counter(), PeakMemory(), 1
    memory.reset()
    record = RunRecord(job)
    summary = record.summary
    summary.git, summary.versions = dict(git_state(Path(__file__).parent)), package_versions()
    summary.hardware = dict(hardware())
    try:
        yield record
        summary.status, exit_code = "finished", 0
    except IncompatibleError as error:
        summary.status, summary.error = "failed", str(error)
        if job.config.get("on_incompatible") != "skip":
            _print_failure(error, job)
            raise
        summary.status, exit_code = "skipped", 0
        console.info(f"Skipped: {error}")
    except XformerError as error:
        summary.status, summary.error = "failed", str(error)
        summary.diverged = isinstance(error, DivergedError)
        _print_failure(error, job)
        raise
    except BaseException as error:
        stopped = interruption(error)
        summary.status = "failed" if stopped is None else "interrupted"
        summary.error = f"{type(error).__name__}: {error}" if stopped is None else str(stopped)
        if stopped is not None and is_main_process():
            console.info(_resume_hint(stopped, job))
        if isinstance(error, SIGTERMException):
            raise stopped from error  # type: ignore[misc]
        raise
    finally:
        summary.peak_memory_bytes = memory.bytes()
        summary.wall_seconds = (summary.wall_seconds or 0.0) + time.perf_counter() - started
        record.close(exit_code)


def _resume_hint(stopped: Interrupted, job: Job) -> str:
    """The message for an interrupted run: the command that resumes it."""
    newest = next(iter(checkpoints.find_checkpoints(job.directory)), None)
    if newest is None:
        return f"{stopped} Nothing was saved yet."
    return f"{stopped} Saved; continue with: {train_command()} resume={job.directory}"


def interruption(error: BaseException | None) -> Interrupted | None:
    """The interruption behind an error; Lightning turns Ctrl-C into a SystemExit that has it as its context."""
    if isinstance(error, Interrupted):
        return error
    if isinstance(error, SIGTERMException):
        return Interrupted(signal.SIGTERM)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(signal.SIGINT)
    return interruption(error.__context__) if isinstance(error, SystemExit) else None


def _print_failure(error: XformerError, job: Job) -> None:
    """In a sweep, print which job failed at once; Hydra would show only the first failure, after the last job."""
    if job.sweep:
        console.error(f"{job.name}: {error}")
        error.reported = True

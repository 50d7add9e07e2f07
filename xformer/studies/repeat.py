"""Repeat recorded runs, each in a separate process and directory."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xformer.config.options import with_current_targets
from xformer.config.plugins import require_plugins
from xformer.errors import ConfigError, DataError, RunError
from xformer.runs.recorded_run import RecordedRun, read_run, run_directories
from xformer.runs.summary import FILE
from xformer.studies.wandb_runs import LoggedRun
from xformer.training.rerun import write_rerun

_XFORMER = [sys.executable, "-m", "xformer.cli"]


def repeat_cell(run: RecordedRun, where: Path, overrides: Sequence[str]) -> tuple[RecordedRun, bool]:
    """Repeat a cell of a study from its overrides; also return whether an earlier repetition had already finished.

    Raises:
        RunError: the training did not start.
        ConfigError: the directory cannot be written, or a plugin of the run is not installed and named.
    """
    require_plugins(run.summary.plugins, run.name)
    directory = where / Path(run.name).name
    words = [*run.summary.overrides, *overrides, f"hydra.sweep.dir='{directory}'", "hydra.sweep.subdir=run"]
    return _launched(directory, ["train", "-m", *words])


def repeat_logged_run(run: LoggedRun, where: Path, overrides: Sequence[str]) -> tuple[RecordedRun, bool]:
    """Repeat a logged run from its resolved configuration; also return whether an earlier repetition had finished.

    Raises:
        RunError: the training did not start.
        ConfigError: the directory cannot be written, or a plugin of the run is not installed and named.
    """
    require_plugins(run.summary.plugins, run.name)
    choices, typed = run.summary.choices, [*run.summary.overrides, *overrides]
    with _writable(where):
        write_rerun(where, with_current_targets(run.config, run.summary), choices, typed, run.source, overrides)
    return _launched(where, ["rerun", str(where)])


def _launched(directory: Path, words: Sequence[str]) -> tuple[RecordedRun, bool]:
    before = _written(directory)
    with _writable(directory), (directory / "screen.log").open("w") as screen:
        launched = subprocess.run([*_XFORMER, *words], stdout=screen, stderr=screen, check=False)
    earlier = before is not None and _written(directory) == before
    if earlier and launched.returncode != 0:
        raise RunError(f"{directory.name} did not start or was killed; see {directory / 'screen.log'}.")
    try:
        return read_run(run_directories(directory)[0]), earlier
    except DataError:
        raise RunError(f"{directory.name} did not start; see {directory / 'screen.log'}.") from None


@contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Make a directory and report clearly if it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error.strerror}; name another with --directory.") from error


def _written(directory: Path) -> int | None:
    """When the summary of the run in this directory was written, in nanoseconds; None without a summary."""
    return max((file.stat().st_mtime_ns for file in directory.glob(f"*/{FILE}")), default=None)

"""The front doors, and the one place that turns an error into a sentence and an exit code."""

import os
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from xformer import commands
from xformer.config.redact import redact_streams
from xformer.config.validate import CONF, explain, is_of_hydra, nearest, unchosen
from xformer.core.threads import wait_passively
from xformer.errors import XformerError
from xformer.runs import sweep

wait_passively()  # before anything loads torch, which reads it then

_TRACEBACK, _WRAPPED = "HYDRA_FULL_ERROR", "XFORMER_WRAPPED"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train_as_configured(config: DictConfig) -> float | None:
    """What Hydra calls with each composed configuration; returns the monitored metric, for a sweeper that searches."""
    from xformer.runs.job import Job
    from xformer.training.run import run

    redact_streams()  # here too, for a launcher's own processes
    job = Job.from_hydra(config)
    try:
        return run(job)
    except XformerError as error:
        # Hydra goes on with a sweep's other jobs, and precedes what a single job raises with lines of its own.
        if job.sweep or _WRAPPED not in os.environ:
            raise
        _tell(str(error))
        sys.exit(1)


def train() -> None:
    """Train one model, or a sweep with -m; resume=DIR continues what is there."""
    _friendly(train_as_typed)


def train_as_typed() -> None:
    """What the command line asks for; a sweep ends, however it ends, with one table over its cells."""
    if any(word.startswith("resume=") for word in sys.argv):
        from xformer.training.resume import expand

        sys.argv[1:] = expand(sys.argv[1:])
    try:
        train_as_configured()
    finally:
        over = sweep.conclude()
        if over is not None and (files := over.summaries()):
            from xformer.training import console

            console.cells(over, files)


def rerun() -> None:
    """Train what a directory's `asked.json` says, for `xformer reproduce --wandb`."""
    from xformer.training.rerun import main as run_again

    _friendly(run_again)


def main() -> None:
    """The console script: xformer COMMAND ..."""
    command, *arguments = sys.argv[1:] or ["--help"]
    known = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    if command in ("-h", "--help"):
        print("usage: xformer COMMAND ...\n")
        for name in known:
            print(f"  {name:<15}{(import_module(f'xformer.commands.{name}').__doc__ or '').splitlines()[0]}")
        print("\nxformer COMMAND --help tells what a command takes.")
        return
    if command not in known:
        _tell(f"{command} is not a command; {nearest(command, known)}")
        sys.exit(2)
    sys.argv = [f"xformer {command}", *arguments]
    _friendly(import_module(f"xformer.commands.{command}").main)


def _friendly(command: Callable[[], object]) -> None:
    """Run a command; what the user can mend is told in a sentence, unless HYDRA_FULL_ERROR=1 asks for a traceback."""
    redact_streams()
    if os.environ.get(_TRACEBACK) == "1" and _WRAPPED not in os.environ:
        command()
        return
    # Hydra prints errors its own way unless asked for full ones; processes started from here are told who asked.
    os.environ[_TRACEBACK] = os.environ[_WRAPPED] = "1"
    try:
        command()
    except (XformerError, HydraException, OmegaConfBaseException) as error:
        if not getattr(error, "told", False):
            _tell(explain(error))
        sys.exit(1)
    except (ValueError, TypeError, AssertionError) as error:
        if not is_of_hydra(error):
            raise
        _tell(unchosen(sys.argv[1:]) or f"{' '.join(sys.argv[1:])} cannot be composed: {explain(error).rstrip('.')}.")
        sys.exit(1)
    except OSError as error:  # outside of a run: of Hydra's own files, a summary, what a command writes
        from xformer.runs.storage import explained

        if (sentence := explained(error, {"place (hydra.run.dir, hydra.sweep.dir, --output)": Path("/")})) is None:
            raise
        _tell(sentence)
        sys.exit(1)


def _tell(sentence: str) -> None:
    from xformer.training import console

    console.error(sentence)

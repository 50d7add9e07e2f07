"""The commands, and the one place that turns an error into a sentence and an exit code."""

import os
import sys
from collections.abc import Callable

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from xformer import console
from xformer.configuration import CONF, explain
from xformer.errors import XformerError

_TRACEBACK, _WRAPPED = "HYDRA_FULL_ERROR", "XFORMER_WRAPPED"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _train(config: DictConfig) -> float | None:
    from xformer.job import Job
    from xformer.run import run

    job = Job.from_hydra(config)
    try:
        return run(job)
    except XformerError as error:
        # Hydra goes on with a sweep's other jobs, and precedes what a single job raises with lines of its own.
        if job.sweep or _WRAPPED not in os.environ:
            raise
        console.error(str(error))
        sys.exit(1)


def train() -> None:
    """Train one model, or a sweep with -m."""
    _friendly(_train)


def compatibility() -> None:
    """Print what goes with what, and why not."""
    from xformer.compatibility_table import markdown

    print(markdown())


COMMANDS: dict[str, Callable[[], None]] = {"train": train, "compatibility": compatibility}


def main() -> None:
    """The console script: xformer COMMAND ..."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        print("usage: xformer COMMAND ...\n")
        for name, function in COMMANDS.items():
            print(f"  {name:<12}{function.__doc__}")
        return
    if command not in COMMANDS:
        console.error(f"{command} is not a command; valid: {', '.join(COMMANDS)}.")
        sys.exit(2)
    del sys.argv[1]
    COMMANDS[command]()


def _friendly(command: Callable[[], object]) -> None:
    """Run a command; what the user can mend is told in a sentence, unless HYDRA_FULL_ERROR=1 asks for a traceback."""
    if os.environ.get(_TRACEBACK) == "1" and _WRAPPED not in os.environ:
        command()
        return
    # Hydra prints errors its own way unless asked for full ones; processes started from here are told who asked.
    os.environ[_TRACEBACK] = os.environ[_WRAPPED] = "1"
    try:
        command()
    except (XformerError, HydraException, OmegaConfBaseException) as error:
        if not getattr(error, "told", False):
            console.error(explain(error))
        sys.exit(1)

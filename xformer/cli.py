"""The entry points `train.py` and `xformer`, which turn errors into one message and an exit code."""

import os
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from xformer import commands
from xformer.commands.train import WRAPPED
from xformer.commands.train import main as train_as_typed
from xformer.config.compose import explain_error, explain_missing_choice, is_of_hydra
from xformer.config.groups import nearest
from xformer.config.plugins import name_plugins
from xformer.config.redact import redact_streams
from xformer.core.program import started_as
from xformer.core.threads import wait_passively
from xformer.errors import XformerError

wait_passively()  # before anything loads torch, which reads it then

_TRACEBACK = "HYDRA_FULL_ERROR"


def train() -> None:
    """Train one model, or a sweep with -m; resume=DIR continues the run in DIR."""
    _friendly(train_as_typed)


def main() -> None:
    """The console script: xformer COMMAND ..."""
    command, *arguments = sys.argv[1:] or ["--help"]
    known = [module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)]
    if command in ("-h", "--help"):
        print("usage: xformer COMMAND ...\n")
        for name in known:
            print(f"  {name:<15}{(_module(name).__doc__ or '').splitlines()[0]}")
        print("\nxformer COMMAND --help describes a command.")
        return
    if command not in known:
        _print_error(f"{command} is not a command; {nearest(command, known)}")
        sys.exit(2)
    started_as("xformer train")
    sys.argv = [str(Path(sys.argv[0]).absolute().with_name(f"xformer {command}")), *arguments]
    _friendly(_module(command).main)


def _module(command: str) -> ModuleType:
    return import_module(f"xformer.commands.{command.replace('-', '_')}")


def _friendly(command: Callable[[], object]) -> None:
    """Run a command; an error the user can fix is one message, unless HYDRA_FULL_ERROR=1 asks for a traceback."""
    redact_streams()

    def run() -> None:
        sys.argv[1:] = name_plugins(sys.argv[1:])
        command()

    if os.environ.get(_TRACEBACK) == "1" and WRAPPED not in os.environ:
        run()
        return
    # Hydra prints its own form of errors unless full ones are requested; child processes inherit the choice.
    os.environ[_TRACEBACK] = os.environ[WRAPPED] = "1"
    try:
        run()
    except (XformerError, HydraException, OmegaConfBaseException) as error:
        if not (isinstance(error, XformerError) and error.reported):
            _print_error(explain_error(error))
        sys.exit(1)
    except (ValueError, TypeError, AssertionError) as error:
        if not is_of_hydra(error):
            raise
        _print_error(
            explain_missing_choice(sys.argv[1:])
            or f"{' '.join(sys.argv[1:])} cannot be composed: {explain_error(error).rstrip('.')}."
        )
        sys.exit(1)
    except OSError as error:  # outside of a run: Hydra's files, a summary, the output of a command
        from xformer.runs.storage import explain_disk_error

        if (
            sentence := explain_disk_error(error, {"place (hydra.run.dir, hydra.sweep.dir, --output)": Path("/")})
        ) is None:
            raise
        _print_error(sentence)
        sys.exit(1)


def _print_error(sentence: str) -> None:
    from xformer.core import console

    console.error(sentence)


if __name__ == "__main__":
    main()

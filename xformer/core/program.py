"""Commands to print, in the form in which this process was started and with the plugins that were named for it."""

import os
import shlex
from collections.abc import Iterable

_VARIABLE = "XFORMER_PROGRAM"
_PLUGINS = "XFORMER_TYPED_PLUGINS"


def started_as(command: str) -> None:
    """Set the training command for this process and its child processes."""
    os.environ[_VARIABLE] = command


def add_typed_plugins(packages: Iterable[str]) -> None:
    """Add plugins that only a command line names, for this process and its child processes."""
    earlier = os.environ.get(_PLUGINS, "").split(",")
    os.environ[_PLUGINS] = ",".join(dict.fromkeys(filter(None, [*earlier, *packages])))


def with_plugins(command: str) -> str:
    """A command followed by `plugins=[...]` for the plugins that only the command line named; quoted for a shell."""
    typed = os.environ.get(_PLUGINS)
    return f"{command} {shlex.quote(f'plugins=[{typed}]')}" if typed else command


def train_command() -> str:
    """`python train.py` in a clone, `xformer train` if the console script was used; with the typed plugins."""
    return with_plugins(os.environ.get(_VARIABLE, "python train.py"))

"""The training command in the form in which this process was started."""

import os

_VARIABLE = "XFORMER_PROGRAM"


def started_as(command: str) -> None:
    """Set the training command for this process and its child processes."""
    os.environ[_VARIABLE] = command


def train_command() -> str:
    """`python train.py` in a clone, `xformer train` if the console script was used."""
    return os.environ.get(_VARIABLE, "python train.py")

"""The command that trains, as whoever started this process would type it."""

import os

_VARIABLE = "XFORMER_PROGRAM"


def started_as(command: str) -> None:
    """Remember how to train from here, for this process and those that it starts."""
    os.environ[_VARIABLE] = command


def train_command() -> str:
    """`python train.py` in a clone, `xformer train` where the console script was typed."""
    return os.environ.get(_VARIABLE, "python train.py")

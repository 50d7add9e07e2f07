"""A run that gets a signal at a chosen moment of its own work: places are counted, not seconds."""

import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Callback, Trainer

TRAINING = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end",
)  # fmt: skip
VALIDATION = (
    "on_validation_start", "on_validation_batch_start", "on_validation_batch_end", "on_validation_epoch_end",
    "on_validation_end",
)  # fmt: skip
TEST = ("on_test_start", "on_test_batch_start", "on_test_batch_end", "on_test_end")


@dataclass
class Moment:
    """The `index`-th passage of a kind of place: "training", "validation", "test" or "writing"."""

    place: str
    index: int
    number: signal.Signals


class Passages(Callback):
    """Counts the places that a run passes, and sends the signal at the chosen one.

    In validation and training they are Lightning's hooks; in the write of a checkpoint, each piece of the file, and
    the moment before the file takes its name.
    """

    def __init__(self, moment: Moment | None) -> None:
        self.moment = moment
        self.counts = {"training": 0, "validation": 0, "test": 0, "writing": 0}

    def at(self, place: str) -> None:
        index, self.counts[place] = self.counts[place], self.counts[place] + 1
        if self.moment and (place, index) == (self.moment.place, self.moment.index):
            if self.moment.number == signal.SIGKILL:
                os.kill(os.getpid(), signal.SIGKILL)
            else:  # a terminal and SLURM signal the processes that load data as well
                os.killpg(os.getpgrp(), self.moment.number)

    def watch_writing(self) -> None:
        """Count in what writes checkpoints, however it does that: `torch.save`, and a renaming."""
        save = torch.save

        def watched(content: Any, file: IO[bytes], *rest: Any, **options: Any) -> None:
            save(content, _Pieces(file, self), *rest, **options)  # type: ignore[arg-type]

        torch.save = watched
        sys.addaudithook(self._renamed)

    def _renamed(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith(".ckpt"):
            self.at("writing")


class _Pieces:
    def __init__(self, file: IO[bytes], passages: Passages) -> None:
        self._file, self._passages, self._number = file, passages, 0

    def write(self, piece: bytes) -> int:
        if self._number % 40 == 7:  # a file has some hundred pieces
            self._passages.at("writing")
        self._number += 1
        return self._file.write(piece)

    def flush(self) -> None:
        self._file.flush()


def _hook(place: str) -> Callable[..., None]:
    def hook(self: Passages, trainer: Trainer, *arguments: Any, **options: Any) -> None:
        if (place == "test") == (trainer.state.fn == "test") and trainer.state.fn != "validate":
            self.at(place)

    return hook


for _names, _place in ((TRAINING, "training"), (VALIDATION, "validation"), (TEST, "test")):
    for _name in _names:
        setattr(Passages, _name, _hook(_place))


def place_of(seed: int) -> str:
    """One in five inside a validation, one in five inside a checkpoint's write, one in ten in the final test."""
    return ["validation", "writing", "training", "training", "training"][seed % 5] if seed % 10 != 9 else "test"


def moment(seed: int, number: signal.Signals, counts: dict[str, int], salt: str) -> Moment:
    """Where a seed strikes, of the places that the uninterrupted run passed."""
    place = place_of(seed)
    return Moment(place, random.Random(f"{salt}-{number.name}-{seed}").randrange(counts[place]), number)


def scontrol(directory: Path) -> Path:
    """A `scontrol` that writes down what it was asked, in a folder to put into PATH."""
    stub = directory / "bin" / "scontrol"
    stub.parent.mkdir(parents=True)
    after = 'kill -9 "$PPID"' if os.environ.get("SCONTROL_KILLS") else "true"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {directory}/scontrol.txt\n{after}\n')
    stub.chmod(0o755)
    return stub.parent

"""Progress for people: a bar on a terminal, a line now and then in a log file."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from torch import Tensor

_NAMES = {"tokens_per_second": "tokens/s"}


def progress(*, seconds: Annotated[float, Ge(0)]) -> ProgressBar:
    """A bar where standard output is a terminal, else plain lines.

    Args:
        seconds: How far apart the lines are, in seconds; the bar does not use it.
    """
    return Bar() if sys.stdout.isatty() else ProgressLines(seconds=seconds)


class Bar(RichProgressBar):
    """Lightning's bar with the metrics a person reads, and the time left for the whole run."""

    _SECONDS = 0.25

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self._shown: dict[str, Any] = {}
        self._shown_at = -math.inf
        self._clock = _Clock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the estimate of the time left."""
        super().on_train_start(trainer, pl_module)
        self._clock.start(trainer)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The text shown; a few times a second at most, because reading a metric waits for the device."""
        now = time.monotonic()
        if now - self._shown_at >= self._SECONDS:
            self._shown_at = now
            step = {"step": f"{trainer.global_step}/{_total(trainer) or '?'}"}
            brief = _brief(trainer.progress_bar_metrics)
            self._shown = {**step, **texts(brief), "left": self._clock.left(trainer)}
        return self._shown

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"  # Lightning's adds the number of epochs, which is -2 where steps are counted


class ProgressLines(ProgressBar):
    """One plain line every so many seconds, after each validation and at the end."""

    def __init__(self, *, seconds: float):
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._clock = _Clock()
        self._printed_at = 0.0
        self._printed_step = -1

    def enable(self) -> None:
        """Print."""
        self._enabled = True

    def disable(self) -> None:
        """Print nothing; Lightning asks for it on all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock.start(trainer)
        self._printed_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print if it is time."""
        if time.monotonic() - self._printed_at >= self.seconds:
            self._print(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._print(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last step, unless it was."""
        if self._printed_step != trainer.global_step:
            self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        if not self._enabled:
            return
        self._printed_at, self._printed_step = time.monotonic(), trainer.global_step
        total = _total(trainer)
        step = f"step {trainer.global_step}" + (f"/{total}" if total else "")
        metrics = [f"{name} {text}" for name, text in texts(trainer.progress_bar_metrics).items()]
        print("  ".join([step, *metrics, f"left {self._clock.left(trainer)}"]), flush=True)


def _brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What has room beside a bar: the loss and one more metric of training, and whatever is of neither stage."""
    training = [name for name in metrics if name.startswith("train/")][:2]
    return {name: value for name, value in metrics.items() if name in training or "/" not in name}


def texts(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Metrics by the name and in the form a person reads: `tokens/s` in whole thousands, the rest to three places."""
    return {_NAMES.get(name, name): _text(name, value) for name, value in metrics.items()}


def _text(name: str, value: Any) -> str:
    number = value.item() if isinstance(value, Tensor) else value
    if not isinstance(number, (int, float)):
        return str(number)
    return f"{number:,.0f}" if name == "tokens_per_second" else f"{number:.3f}"


class _Clock:
    """The time left, from the optimiser steps this process has done so far."""

    def __init__(self) -> None:
        self._started = 0.0
        self._first_step = 0

    def start(self, trainer: Trainer) -> None:
        self._started = time.monotonic()
        self._first_step = trainer.global_step

    def left(self, trainer: Trainer) -> str:
        total, done = _total(trainer), trainer.global_step - self._first_step
        if total is None or done <= 0:
            return "?"
        seconds = (time.monotonic() - self._started) / done * max(0, total - trainer.global_step)
        hours, rest = divmod(round(seconds), 3600)
        minutes, rest = divmod(rest, 60)
        return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _total(trainer: Trainer) -> int | None:
    if trainer.fit_loop.max_epochs == -1 and trainer.max_steps == -1:
        return None
    total = trainer.estimated_stepping_batches
    return int(total) if math.isfinite(total) else None

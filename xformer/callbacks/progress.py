"""Progress for people: a bar on a terminal, a line now and then in a log file."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

_NAMES = {"tokens_per_second": "tokens/s"}


def progress(*, seconds: Annotated[float, Ge(0)]) -> ProgressBar:
    """A bar where standard output is a terminal, else plain lines.

    Args:
        seconds: How far apart the lines are, in seconds; the bar does not use it.
    """
    return Bar() if sys.stdout.isatty() else ProgressLines(seconds=seconds)


class Bar(ProgressBar):
    """One line at the foot of a terminal: the step, the metrics a person reads, and the time left for the whole run.

    What does not fit into the line is left out, the least wanted first.

    Args:
        console: Where the line is drawn; None for standard output.
    """

    _SECONDS = 0.25  # between two readings of the metrics, which wait for the device

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None
        self._enabled = True
        self._doing = ""
        self._drawn_at = -math.inf
        self._clock = _Clock()

    def enable(self) -> None:
        """Draw."""
        self._enabled = True

    def disable(self) -> None:
        """Draw nothing; Lightning asks for it on all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the estimate of the time left."""
        if self._enabled:
            print_resumed(trainer)
        self._clock.start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw, if it is time."""
        self._doing = ""
        self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last line as it is."""
        self._drawn_at, self._doing = -math.inf, ""
        self._draw(trainer)
        self._stop()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Say how far validation is."""
        self.has_dataloader_changed(dataloader_idx)
        self._doing = f"validating {batch_idx + 1}/{_count(self.total_val_batches_current_dataloader)}"
        self._draw(trainer)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Say how far the test is."""
        self.has_dataloader_changed(dataloader_idx)
        self._doing = f"testing {batch_idx + 1}/{_count(self.total_test_batches_current_dataloader)}"
        self._draw(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start over with the next one."""
        self.reset_dataloader_idx_tracker()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start over with the next one."""
        self.reset_dataloader_idx_tracker()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal to whoever tells what happened."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal; what was measured after training is told elsewhere."""
        if self._live is not None:
            self._live.transient = stage != "fit"
        self._stop()

    def _draw(self, trainer: Trainer) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._drawn_at < self._SECONDS:
            return
        self._drawn_at = now
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
            self._live.start()
        training, total = trainer.state.fn == "fit", _total(trainer)
        text = progress_line(
            self._live.console.width,
            step=trainer.global_step if training else None,
            total=total if training else None,
            doing=self._doing,
            metrics=trainer.progress_bar_metrics if training else {},
            left=self._clock.left(trainer) if training else None,
        )
        self._live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


_SHORTEST_BAR, _LONGEST_BAR = 5, 40


def progress_line(
    width: int,
    *,
    step: int | None,
    total: int | None,
    doing: str = "",
    metrics: Mapping[str, Any],
    left: str | None,
) -> str:
    """The bar as one line of at most `width` characters.

    Args:
        width: Of the terminal.
        step: Optimiser steps done; None where nothing is trained.
        total: Of how many; None where that is not known.
        doing: What else is going on, `validating 3/10`.
        metrics: By name as logged; as many as there is room for, the loss first.
        left: The time left for the whole run.
    """
    begin = [] if step is None else [f"{step:,}/{total:,}" if total else f"step {step:,}"]
    begin += [doing] if doing else []
    end = [] if left is None else [f"{left} left"]
    shown: list[str] = []
    room = width - 1 - len("  ".join([*begin, *end])) - (2 + _SHORTEST_BAR if total else 0)
    for text in _readable(metrics):
        room -= len(text) + 2
        if room < 0:
            break
        shown.append(text)
    bar = []
    if total and step is not None:
        free = width - 1 - len("  ".join([*begin, *shown, *end])) - 2
        length = min(free, _LONGEST_BAR)
        done = min(length, length * step // total)
        bar = ["━" * done + "─" * (length - done)] if length > 0 else []
    return "  ".join([*begin, *bar, *shown, *end])[: width - 1]


def _readable(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics as a person reads them, the most wanted first: two of training, the speed, those of validation."""
    training = [name for name in metrics if name.startswith("train/")]
    other = [name for name in metrics if "/" not in name]
    rest = [name for name in metrics if name not in training and name not in other]
    brief = {name.removeprefix("train/"): metrics[name] for name in training[:2]}
    found = [f"{name} {text}" for name, text in format_metrics(brief).items()]
    found += [f"{text} {name}" for name, text in format_metrics({name: metrics[name] for name in other}).items()]
    return found + [f"{name} {text}" for name, text in format_metrics({name: metrics[name] for name in rest}).items()]


def print_resumed(trainer: Trainer) -> None:
    """Say from which step a resumed run goes on."""
    if trainer.global_step:
        total = _total(trainer)
        print(f"resumed from step {trainer.global_step:,}" + (f" of {total:,}" if total else ""), flush=True)


def _count(batches: float | int) -> str:
    return f"{batches:,}" if math.isfinite(batches) else "?"


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
        if self._enabled:
            print_resumed(trainer)
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
        metrics = [f"{name} {text}" for name, text in format_metrics(trainer.progress_bar_metrics).items()]
        print("  ".join([step, *metrics, f"left {self._clock.left(trainer)}"]), flush=True)


def format_metrics(metrics: Mapping[str, Any]) -> dict[str, str]:
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

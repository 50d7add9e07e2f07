"""Progress display: a bar on a terminal, or plain lines in a log file."""

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
    """Create the progress callback: a bar if standard output is a terminal, else plain lines.

    Args:
        seconds: Seconds between lines; the bar does not use it.
    """
    return Bar() if sys.stdout.isatty() else ProgressLines(seconds=seconds)


class Bar(ProgressBar):
    """A progress bar in one line of the terminal: the step, the main metrics, and the time left for the whole run.

    Entries that do not fit into the line are left out, the least important first.

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
        """Show the bar."""
        self._enabled = True

    def disable(self) -> None:
        """Hide the bar; Lightning calls this on all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the estimate of the time left."""
        if self._enabled:
            print_resumed(trainer)
        self._clock.start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw the bar if it is due."""
        self._doing = ""
        self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last line on the screen."""
        self._drawn_at, self._doing = -math.inf, ""
        self._draw(trainer)
        self._stop()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the progress of validation."""
        self.has_dataloader_changed(dataloader_idx)
        self._doing = f"validating {batch_idx + 1}/{_count(self.total_val_batches_current_dataloader)}"
        self._draw(trainer)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the progress of the test."""
        self.has_dataloader_changed(dataloader_idx)
        self._doing = f"testing {batch_idx + 1}/{_count(self.total_test_batches_current_dataloader)}"
        self._draw(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset for the next one."""
        self.reset_dataloader_idx_tracker()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset for the next one."""
        self.reset_dataloader_idx_tracker()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error can be printed."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the bar; results of evaluation are printed elsewhere."""
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
    """Format the bar as one line of at most `width` characters.

    Args:
        width: The terminal's width.
        step: Optimiser steps done; None if nothing is trained.
        total: The total number of steps; None if unknown.
        doing: The current activity, such as `validating 3/10`.
        metrics: Metrics by name; as many as fit, the loss first.
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
    """The metrics to show, the most important first: two of training, the speed, those of validation."""
    training = [name for name in metrics if name.startswith("train/")]
    other = [name for name in metrics if "/" not in name]
    rest = [name for name in metrics if name not in training and name not in other]
    brief = {name.removeprefix("train/"): metrics[name] for name in training[:2]}
    found = [f"{name} {text}" for name, text in format_metrics(brief).items()]
    found += [f"{text} {name}" for name, text in format_metrics({name: metrics[name] for name in other}).items()]
    return found + [f"{name} {text}" for name, text in format_metrics({name: metrics[name] for name in rest}).items()]


def print_resumed(trainer: Trainer) -> None:
    """Print the step from which a resumed run continues."""
    if trainer.global_step:
        total = _total(trainer)
        print(f"resumed from step {trainer.global_step:,}" + (f" of {total:,}" if total else ""), flush=True)


def _count(batches: float | int) -> str:
    return f"{batches:,}" if math.isfinite(batches) else "?"


class ProgressLines(ProgressBar):
    """Prints one plain line every few seconds, after each validation and at the end."""

    def __init__(self, *, seconds: float):
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._clock = _Clock()
        self._printed_at = 0.0
        self._printed_step = -1

    def enable(self) -> None:
        """Enable printing."""
        self._enabled = True

    def disable(self) -> None:
        """Disable printing; Lightning calls this on all processes but the first."""
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
        """Print if a line is due."""
        if time.monotonic() - self._printed_at >= self.seconds:
            self._print(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._print(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last step, unless it was printed already."""
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
    """Format metrics for display: `tokens/s` as a whole number, the rest to three decimals."""
    return {_NAMES.get(name, name): _text(name, value) for name, value in metrics.items()}


def _text(name: str, value: Any) -> str:
    number = value.item() if isinstance(value, Tensor) else value
    if not isinstance(number, (int, float)):
        return str(number)
    return f"{number:,.0f}" if name == "tokens_per_second" else f"{number:.3f}"


class _Clock:
    """Estimates the time left from the optimiser steps that this process has done so far."""

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

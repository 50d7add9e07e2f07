"""Throughput: the number of tokens a run has seen, and tokens per second."""

import time
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from xformer.core import devices
from xformer.tasks.base import Task


class Throughput(Callback):
    """Counts tokens without padding over all processes, and measures the time of training alone.

    Tokens are counted on their device and read only when Lightning logs, so a training step never waits for the
    device. The clock stands during validation and between epochs, and starts after `warmup` batches, which pay for
    compilation, caches and the first data. Logs `tokens` (with training and with validation metrics, as an x-axis for
    both) and `tokens_per_second` since it was logged last.

    Attributes:
        tokens_seen: Tokens trained on, over all processes and resumptions, up to the last log, validation or
            checkpoint.
        earlier_seconds: Training time of earlier processes of this run, each up to the checkpoint resumed from.
    """

    changes_result: ClassVar[bool] = False
    state_key = "Throughput"  # the key of its state in a checkpoint, independent of the class name

    def __init__(self, *, warmup: Annotated[int, Ge(0)]):
        self.warmup = warmup
        self.tokens_seen = 0
        self.earlier_seconds = 0.0
        self._made = time.perf_counter()
        self._timed_tokens = 0
        self._timed_seconds = 0.0
        self._batches = 0
        self._pending: Tensor | None = None
        self._clock: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second over all processes, without the warm-up; None until something was timed."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the timer if it is stopped and the warm-up is over."""
        if self._clock is None and self._batches >= self.warmup:
            self._clock = _now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's tokens, and log when Lightning logs."""
        assert isinstance(pl_module, Task)
        count = pl_module.count_tokens(batch)
        self._pending = count if self._pending is None else self._pending + count
        self._batches += 1
        if self._batches == self.warmup:
            self._read()
        if not trainer._logger_connector.should_update_logs:
            return
        tokens, seconds = self._read()
        pl_module.log("tokens", _exact(self.tokens_seen), on_step=True, on_epoch=False)
        if seconds:
            pl_module.log("tokens_per_second", tokens / seconds, on_step=True, on_epoch=False, prog_bar=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the timer."""
        self._stop()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of tokens with the validation metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            pl_module.log("tokens", _exact(self.tokens_seen), on_step=False, on_epoch=True, reduce_fx="max")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the timer."""
        self._stop()

    def state_dict(self) -> dict[str, int | float]:
        """The counts, so that a resumed run continues counting."""
        self._read()
        return {
            "tokens_seen": self.tokens_seen,
            "timed_tokens": self._timed_tokens,
            "timed_seconds": self._timed_seconds,
            "seconds": self.earlier_seconds + time.perf_counter() - self._made,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts from a checkpoint; the warm-up starts again."""
        self.tokens_seen = int(state_dict["tokens_seen"])
        self._timed_tokens = int(state_dict["timed_tokens"])
        self._timed_seconds = float(state_dict["timed_seconds"])
        self.earlier_seconds = float(state_dict.get("seconds", 0.0))  # older checkpoints do not know

    def _stop(self) -> None:
        self._read()
        self._clock = None

    def _read(self) -> tuple[int, float]:
        """Add pending counts to the totals; return the tokens and seconds timed since the last call."""
        tokens = 0
        if self._pending is not None:
            tokens = _over_processes(self._pending)
            self._pending = None
            self.tokens_seen += tokens
        if self._clock is None or not tokens:
            return 0, 0.0
        now = _now()
        seconds, self._clock = now - self._clock, now
        self._timed_tokens += tokens
        self._timed_seconds += seconds
        return tokens, seconds


def _now() -> float:
    """The time after the device has finished all queued work: kernels run asynchronously."""
    devices.synchronize()
    return time.perf_counter()


def _over_processes(count: Tensor) -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.clone()
        torch.distributed.all_reduce(count)
    return int(count.item())


def _exact(count: int) -> Tensor:
    # Lightning would make it float32, which counts to 16,777,216.
    return torch.tensor(count, dtype=torch.float64)

"""How many tokens a run has seen, and how fast."""

import time
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from xformer.core import devices
from xformer.tasks.base import Task


class Throughput(Callback):
    """Counts real tokens over all processes and times training alone.

    Tokens are counted on their device and read only when Lightning logs, so a training step never waits for the
    device. The clock stands during validation and between epochs, and starts after `warmup` batches, which pay for
    compilation, caches and the first data. Logs `tokens` (with training and with validation metrics, as an x-axis for
    both) and `tokens_per_second` since it was logged last.

    Attributes:
        tokens_seen: Tokens trained on, over all processes and resumptions, up to the last log, validation or
            checkpoint.
        earlier_seconds: What earlier processes took of this run, each up to the checkpoint that it was continued from.
    """

    changes_result: ClassVar[bool] = False
    state_key = "Throughput"  # of its state in a checkpoint, whatever the class is called

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
        """Steady speed over all processes; None until something beyond the warm-up was timed."""
        return self._timed_tokens / self._timed_seconds if self._timed_seconds else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock if it stands and the warm-up is over."""
        if self._clock is None and self._batches >= self.warmup:
            self._clock = _now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and log when Lightning does."""
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
        """Stop the clock."""
        self._stop()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the tokens beside the validation metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            pl_module.log("tokens", _exact(self.tokens_seen), on_step=False, on_epoch=True, reduce_fx="max")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def state_dict(self) -> dict[str, int | float]:
        """The counts, so that a resumed run counts on."""
        self._read()
        return {
            "tokens_seen": self.tokens_seen,
            "timed_tokens": self._timed_tokens,
            "timed_seconds": self._timed_seconds,
            "seconds": self.earlier_seconds + time.perf_counter() - self._made,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint; the warm-up is paid again."""
        self.tokens_seen = int(state_dict["tokens_seen"])
        self._timed_tokens = int(state_dict["timed_tokens"])
        self._timed_seconds = float(state_dict["timed_seconds"])
        self.earlier_seconds = float(state_dict.get("seconds", 0.0))  # older checkpoints do not know

    def _stop(self) -> None:
        self._read()
        self._clock = None

    def _read(self) -> tuple[int, float]:
        """Take in what is pending; the tokens and seconds that were timed since the last time."""
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
    """The time once the device has done all it was given: kernels run behind the host."""
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

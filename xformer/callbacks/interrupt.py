"""Saving and stopping on signals (Ctrl-C, SIGTERM, SLURM's SIGUSR1), between two optimiser steps.

Ctrl-C, SIGTERM and, under SLURM, SIGUSR1, which also puts the job back into the queue. Where no training is under way
there is nothing to save, and they stop the run at once, as a second Ctrl-C does everywhere.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn

from xformer.callbacks.resume import store_table_rows
from xformer.core.devices import is_main_process
from xformer.errors import Interrupted, RunError
from xformer.runs.checkpoints import FOLDER, LAST


class _Request:
    """The signal handler, which records the first signal received in this process."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.training = False  # whether there will be a boundary to stop at
        self.process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Record a signal; of several, the first counts.

        Raises:
            Interrupted: no training is under way, or Ctrl-C was pressed again.
        """
        if os.getpid() != self.process:  # one that was forked from it, and stops when it does
            return
        impatient = self.received is not None and number == signal.SIGINT
        repeated, self.received = self.received is not None, self.received or signal.Signals(number)
        if impatient or not (self.training or repeated):
            raise Interrupted(self.received)


_request = _Request()


@contextmanager
def handling_signals() -> Iterator[None]:
    """A context that handles the signals that stop a run; signals that the process ignores (`nohup`) stay ignored.

    Raises:
        Interrupted: the run has stopped and its record is written; under SLURM the job is requeued.
        RunError: SLURM refused.
    """
    _request.received, _request.training, _request.process = None, False, os.getpid()
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if SLURMEnvironment.detect() else [])]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    handlers = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, _request)
    try:
        yield
    except Interrupted as stop:
        if stop.signal == signal.SIGUSR1 and is_main_process():
            requeue()
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class SaveOnInterrupt(Callback):
    """Saves `last.ckpt` and stops the run after a signal (`handling_signals`); Lightning would save nothing.

    It is saved after an optimiser step or before the validation that follows it. A running validation is aborted,
    because grace times are short, and runs again on resumption. Processes agree, so that all stop at the same step.

    Comes after the callbacks that have a state to save.
    """

    changes_result: ClassVar[bool] = False

    def __init__(self) -> None:
        self._checkpoint: dict[str, Any] | None = None
        self._received: signal.Signals | None = None
        self._group: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Disable Lightning's own signal handlers, which would save inside of a step."""
        trainer._signal_connector = _NoSignalHandlers(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, a signal is handled at the end of a step."""
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")  # numbers on the CPU: no waiting for a device
        _request.training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a signal, capture the state between two steps, unless a validation comes next."""
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None
        if loop._should_accumulate() or loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            return
        if self._agreed(trainer):
            self._checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write the captured state: only now the metrics of that step are in the table."""
        self._save_and_stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the captured state, or stop: the last checkpoint is of this step or of the last validation."""
        self._save_and_stop(trainer)
        _request.training = False
        if self._agreed(trainer):
            self._stop(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """After a signal, save the state before this validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self._agreed(trainer):
            self._checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)
            self._save_and_stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """From here on, a signal stops the run at once."""
        _request.training = False

    def _save_and_stop(self, trainer: Trainer) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        if "exact_resume" in checkpoint:
            store_table_rows(trainer, checkpoint)
        trainer.strategy.save_checkpoint(checkpoint, Path(trainer.default_root_dir) / FOLDER / LAST)
        trainer.strategy.barrier("SaveOnInterrupt")
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        assert self._received is not None
        # A launcher that sees another process fail would kill the first one, which has yet to write the summary.
        raise Interrupted(self._received, code=None if trainer.is_global_zero else 0)

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether any process received a signal; all processes get the same answer."""
        received = int(_request.received or 0)
        if trainer.world_size > 1:
            number = torch.tensor(received)
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX, group=self._group)
            received = int(number)
        if received:
            self._received = _request.received = signal.Signals(received)
        return bool(received)


class _NoSignalHandlers(_SignalConnector):
    """A replacement for Lightning's signal connector that registers no handlers."""

    def register_signal_handlers(self) -> None:
        """Register nothing."""


def requeue() -> None:
    """Put this SLURM job back into the queue.

    Raises:
        RunError: SLURM did not take it.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (isinstance(error, subprocess.CalledProcessError) and error.stderr) or str(error)
        raise RunError(
            f"scontrol requeue {job} failed ({reason.strip()}): continue the saved run in another job with resume=true."
        ) from error

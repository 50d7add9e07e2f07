"""Exact resumption: a resumed run continues as if it had never stopped."""

import random
import warnings
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from xformer.core import devices
from xformer.errors import RunError
from xformer.layers.stable_names import stable_parameters
from xformer.loggers.metrics_csv import MetricsCSV


@runtime_checkable
class ResumableSampler(Protocol):
    """Protocol of a batch sampler whose order depends on a seed and the epoch alone, and that can start inside one."""

    epoch: int
    start: int  # batches of this epoch that were consumed already

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose batches come next, from its first one."""


class ExactResume(Callback):
    """Saves the position in the data and the random state of every process, and restores both on resumption.

    Exact, to the bit, if the training DataLoader takes its batches from a `ResumableSampler`, every DataLoader draws
    its worker seeds from a generator of its own (else creating an iterator advances the global random state) and the
    trainer has `use_distributed_sampler=False`:

    - in the middle of an epoch and at its end;
    - inside an accumulation, whose gradients are stored, those of each process;
    - inside a validation, which is then run whole: a validation changes nothing that is stored but the random state,
      and that is kept as it was before;
    - after early stopping, which is not forgotten.

    Also tells the sampler each epoch, which Lightning does only for samplers inside a batch sampler, and notes how long
    the table of metrics was.
    """

    def __init__(self) -> None:
        self._position = (0, 0)
        self._saved: dict[str, Any] | None = None  # the loaded checkpoint's state, until training starts
        self._before_validation: dict[str, Any] | None = None
        self._last_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the position in the data."""
        self._position = (trainer.current_epoch, batch_idx + 1)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run a validation that was interrupted."""
        if self._saved is not None and self._saved.get("validate"):
            # Lightning would not enter its loop after the last step; undone in the validation.
            self._last_step = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps += self._last_step != -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the position in the data, the gradients and the random state from the checkpoint.

        Raises:
            RunError: The sampler cannot start inside an epoch, or the number of processes is another.
        """
        if self._saved is None:
            self._position = (0, 0)
            return
        epoch, consumed = self._position
        if consumed >= trainer.num_training_batches:
            epoch, consumed = epoch + 1, 0
        sampler = _sampler(trainer)
        if sampler is None:
            raise RunError(
                "The training data cannot be resumed exactly because its batch sampler has no epoch and start; set"
                " callbacks.exact_resume=null to continue with batches in another order."
            )
        sampler.set_epoch(epoch)
        sampler.start = consumed
        # Lightning made the iterator before this hook; with workers it has drawn its first batches already.
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        iter(fetcher)
        states, rank = self._saved["random"], trainer.global_rank
        if len(states) != trainer.world_size:
            raise RunError(
                f"The checkpoint was saved by {len(states)} processes and cannot be resumed exactly by"
                f" {trainer.world_size}; use as many, or set callbacks.exact_resume=null."
            )
        parameters = stable_parameters(pl_module)
        for name, gradient in self._saved.get("gradients", [{}] * len(states))[rank].items():
            parameter = parameters[name]
            parameter.grad = gradient.to(parameter.device, copy=True)
        set_random_state(states[rank])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the sampler's epoch; Lightning skips this hook when it resumes inside an epoch."""
        sampler = _sampler(trainer)
        if sampler is not None:
            sampler.set_epoch(trainer.current_epoch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the random state before a validation in training."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._before_validation = random_state()
        if self._saved is not None and self._saved.get("validate"):
            trainer.fit_loop.epoch_loop.max_steps = self._last_step
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()  # marks that it was interrupted
        self._saved = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the recorded random state: later checkpoints are saved after the validation."""
        self._before_validation = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the position and the random state of each process, in the order of ranks."""
        epoch, batch = self._position
        state = {"random": self._before_validation or random_state(), "gradients": _pending(trainer, pl_module)}
        states: list[Any] = [state]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, state)
        checkpoint["exact_resume"] = {
            "epoch": epoch,
            "batch": batch,
            "random": [state["random"] for state in states],
            "gradients": [state["gradients"] for state in states],
            "stopped": trainer.should_stop and not _out_of_time(trainer),
            "validate": self._before_validation is not None,
        }
        if self._before_validation is not None:
            _cut_at_its_start(checkpoint)
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        if progress.completed == progress.processed:  # else the rows of this batch are still to be written
            store_table_rows(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the loaded state until training starts.

        Raises:
            RunError: The checkpoint has no such state.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._saved = checkpoint.get("exact_resume")
        if self._saved is None:
            raise RunError(
                "The checkpoint does not say where in the data it was saved; set callbacks.exact_resume=null to resume"
                " it at the start of an epoch."
            )
        self._position = (self._saved["epoch"], self._saved["batch"])
        trainer.should_stop = self._saved.get("stopped", False)
        # Lightning does not know that this loader starts where it stopped.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")


def store_table_rows(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Store in a checkpoint how many rows of the metrics table belong before it."""
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCSV):
            checkpoint["exact_resume"]["rows"] = logger.rows


def _pending(trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
    """The gradients of an accumulation whose optimiser step has not happened yet."""
    if not trainer.fit_loop._should_accumulate():
        return {}
    parameters = stable_parameters(pl_module).items()
    return {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}


def _out_of_time(trainer: Trainer) -> bool:
    """Whether training ends because of `trainer.max_time`, which may be raised for a resumed run."""
    timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    return any((timer.time_remaining() or 0) <= 0 for timer in timers)


def _cut_at_its_start(checkpoint: dict[str, Any]) -> None:
    """Set Lightning's loops to the start of the interrupted validation, so that it is run completely."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress.update(total=counts, current={**counts}, is_last_batch=False)


def random_state() -> dict[str, Any]:
    """This process's random state: torch, CUDA, NumPy and Python, as tensors and tuples that load as weights only."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (what libraries draw from)
    return {
        "torch": torch.get_rng_state(),
        "cuda": devices.random_states(),
        "numpy": (torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    devices.set_random_states(state["cuda"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _sampler(trainer: Trainer) -> ResumableSampler | None:
    loader = trainer.train_dataloader
    sampler = loader.batch_sampler if isinstance(loader, DataLoader) else None
    return sampler if isinstance(sampler, ResumableSampler) else None

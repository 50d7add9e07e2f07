"""Resume so that the run continues exactly as if it had never stopped."""

import random
import warnings
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from xformer.core import devices
from xformer.errors import RunError
from xformer.logging.metrics_csv import MetricsCSV


@runtime_checkable
class ResumableSampler(Protocol):
    """A batch sampler whose order depends on a seed and the epoch alone, and that can start inside an epoch."""

    epoch: int
    start: int  # batches of this epoch that were consumed already

    def set_epoch(self, epoch: int) -> None:
        """Order the batches for `epoch`, from its first."""


class ExactResume(Callback):
    """Saves where the run is in the data, and the random state of every process; puts both back on resumption.

    Exact, to the bit, in the middle of an epoch and at its end, if the training DataLoader takes its batches from a
    `ResumableSampler`, every DataLoader draws its worker seeds from a generator of its own (else creating an iterator
    advances the global random state) and the trainer has `use_distributed_sampler=False`. A checkpoint inside an
    accumulation of gradients resumes with the next batch, and loses the gradients that were pending.

    Also tells the sampler each epoch, which Lightning does only for samplers inside a batch sampler, and the table of
    metrics from which step on to write.
    """

    def __init__(self) -> None:
        self._position = (0, 0)
        self._random: list[dict[str, Any]] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the position in the data."""
        self._position = (trainer.current_epoch, batch_idx + 1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the data and the random state to where the checkpoint was.

        Raises:
            RunError: The sampler cannot start inside an epoch, or the number of processes is another.
        """
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.start_at(trainer.global_step)
        if self._random is None:
            self._position = (0, 0)
            return
        epoch, consumed = self._position
        if consumed >= trainer.num_training_batches:
            epoch, consumed = epoch + 1, 0
        sampler = _sampler(trainer)
        if sampler is None:
            raise RunError(
                "The training data cannot be resumed exactly because its batch sampler has no epoch and start; set"
                " callbacks.exact_resume=null to go on with batches in another order."
            )
        sampler.set_epoch(epoch)
        sampler.start = consumed
        # Lightning made the iterator before this hook; with workers it has drawn its first batches already.
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        iter(fetcher)
        states, self._random = self._random, None
        if len(states) != trainer.world_size:
            raise RunError(
                f"The checkpoint was saved by {len(states)} processes and cannot be resumed exactly by"
                f" {trainer.world_size}; use as many, or set callbacks.exact_resume=null."
            )
        set_random_state(states[trainer.global_rank])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the sampler the epoch; Lightning leaves this hook out when it resumes inside one."""
        sampler = _sampler(trainer)
        if sampler is not None:
            sampler.set_epoch(trainer.current_epoch)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the position, and the random state of each process in the order of ranks."""
        states: list[Any] = [random_state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, random_state())
        epoch, batch = self._position
        checkpoint["exact_resume"] = {"epoch": epoch, "batch": batch, "random": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training starts.

        Raises:
            RunError: The checkpoint has no such state.
        """
        state = checkpoint.get("exact_resume")
        if state is None:
            raise RunError(
                "The checkpoint does not say where in the data it was saved; set callbacks.exact_resume=null to resume"
                " it at the start of an epoch."
            )
        self._position = (state["epoch"], state["batch"])
        self._random = state["random"]
        # Lightning cannot know that this loader does start where it stopped.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")


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

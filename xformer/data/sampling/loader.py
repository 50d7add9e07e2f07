"""A DataLoader over datasets that return whole batches."""

import signal
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader

_GRACE_SECONDS = 20.0


def identity(batch: Any) -> Any:
    """Return the batch unchanged: a collate function that workers can pickle."""
    return batch


def outlive_signals(worker: int) -> None:
    """Make a data-loading worker ignore signals that a terminal or job sends to all processes of a run.

    The main process needs the batches up to its next optimiser step, saves there, and stops the others. SIGTERM may
    also be that: it ends the process, after some time.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS))


class Loader(DataLoader[Any]):
    """A DataLoader over datasets that return whole batches, with its own random generator.

    Args:
        dataset: returns a whole batch from `__getitems__(indices)`.
        batches: the indices of each batch.
        seed: of the generator that seeds workers, so that starting them leaves the global generator alone.
        num_workers: processes that fetch ahead.
        pin_memory: whether batches are put where a CUDA device can fetch them while the host goes on.
    """

    def __init__(
        self, dataset: Any, batches: Iterable[list[int]], *, seed: int, num_workers: int, pin_memory: bool = False
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=identity,
            worker_init_fn=outlive_signals,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )

"""A DataLoader over items that come batched."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from xformer.core import devices


def identity(batch: Any) -> Any:
    """Collate what `__getitems__` has already batched (a function, so that workers can pickle it)."""
    return batch


class Loader(DataLoader[Any]):
    """A plain DataLoader over items that come batched, with its own generator.

    Args:
        dataset: Gives a whole batch from `__getitems__(indices)`.
        batches: The order.
        seed: Of the generator that seeds workers, so that starting them leaves the global generator alone.
        num_workers: Processes that fetch ahead.
    """

    def __init__(self, dataset: Any, batches: Sampler[list[int]], *, seed: int, num_workers: int) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=identity,
            pin_memory=devices.available(),
            persistent_workers=num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )

"""A DataLoader whose place in the epoch travels with Lightning's checkpoints."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from xformer.data.sampler import EvaluationBatches, TrainingBatches


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

    def __init__(
        self, dataset: Any, batches: TrainingBatches | EvaluationBatches, *, seed: int, num_workers: int
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=identity,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )


class ResumableLoader(Loader):
    """A training loader that continues where a checkpoint was written, mid-epoch and with workers too.

    Lightning saves and restores any loader that has `state_dict`. Batches are counted as they are handed out, not as
    workers fetch them ahead.
    """

    batch_sampler: TrainingBatches

    # A generator function on purpose: Lightning calls iter() before it sets the epoch, and a generator starts its
    # workers, and so reads the sampler, only at the first next().
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield what is left of the epoch."""
        self._consumed = self.batch_sampler.start
        for batch in super().__iter__():
            self._consumed += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches already handed out."""
        return {"epoch": self.batch_sampler.epoch, "start": getattr(self, "_consumed", self.batch_sampler.start)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from what `state_dict` gave."""
        self.batch_sampler.epoch, self.batch_sampler.start = state["epoch"], state["start"]
        self._consumed = state["start"]

"""A loader gives the batches of its sampler, leaves the global generator alone, and outlives a run's signals."""

import os
import signal

import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch

from xformer.data.sampling.loader import Loader
from xformer.data.sampling.order import Permutation
from xformer.data.sampling.sampler import TrainingBatches


class Squares:
    """Gives a whole batch of squares at once, and no single item."""

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor(indices) ** 2


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_as_the_dataset_made_them_in_the_samplers_order(workers: int) -> None:
    batches = TrainingBatches(Permutation(20), 5, seed=1)
    loader = Loader(Squares(), batches, seed=0, num_workers=workers)
    state = torch.get_rng_state()
    found = [batch.tolist() for batch in loader]
    assert found == [[index**2 for index in batch] for batch in batches]
    assert len(loader) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_of_the_workers_is_the_loaders() -> None:
    def base(seed: int) -> int:
        return iter(Loader(Squares(), TrainingBatches(Permutation(20), 5, 0), seed=seed, num_workers=0))._base_seed

    assert base(1) == base(1) != base(2)


def test_lightning_finds_set_epoch() -> None:
    batches = TrainingBatches(Permutation(50), 10, 0)
    _set_sampler_epoch(Loader(range(50), batches, seed=0, num_workers=0), 4)
    assert batches.epoch == 4


def test_a_worker_goes_on_when_all_processes_of_a_run_are_signalled() -> None:
    batches = TrainingBatches(Permutation(50), 5, 0)
    arriving = iter(Loader(Squares(), batches, seed=0, num_workers=1))
    found = [next(arriving)]
    (worker,) = arriving._workers
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(worker.pid, number)
    found += arriving
    assert worker.is_alive()
    assert [batch.tolist() for batch in found] == [[index**2 for index in batch] for batch in batches]

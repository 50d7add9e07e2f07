import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xformer.data.sampling.order import Permutation, RandomDraws
from xformer.data.sampling.sampler import TrainingBatches, evaluation_batches
from xformer.errors import ConfigError

fast = settings(deadline=None, max_examples=50)
orders = st.one_of(
    st.integers(40, 200).map(Permutation),
    st.builds(RandomDraws, size=st.integers(1, 10**6), count=st.integers(40, 200)),
)


def flat(batches) -> list[int]:
    return [item for batch in batches for item in batch]


def at(batches: TrainingBatches, epoch: int, start: int = 0) -> list[list[int]]:
    batches.set_epoch(epoch)
    batches.start = start
    return list(batches)


@fast
@given(order=orders, seed=st.integers(0, 2**32), epoch=st.integers(0, 50), history=st.lists(st.integers(0, 9)))
def test_the_order_depends_on_seed_and_epoch_alone(order, seed, epoch, history):
    first = at(TrainingBatches(order, 8, seed), epoch)
    torch.manual_seed(len(history))
    np.random.seed(len(history))  # noqa: NPY002 - the global generator is what must not matter
    batches = TrainingBatches(order, 8, seed)
    for earlier in history:
        at(batches, earlier)
    assert at(batches, epoch) == first


@fast
@given(size=st.integers(30, 200), seed=st.integers(0, 100), epoch=st.integers(0, 100))
def test_another_seed_or_epoch_is_another_order(size, seed, epoch):
    def order(seed, epoch):
        return at(TrainingBatches(Permutation(size), 10, seed), epoch)

    assert order(seed, epoch) != order(seed + 1, epoch)
    assert order(seed, epoch) != order(seed, epoch + 1)
    # Seed and epoch must not be merely added.
    assert order(seed, epoch + 1) != order(seed + 1, epoch)


@fast
@given(order=orders, batch_size=st.integers(1, 20), epoch=st.integers(0, 5), data=st.data())
def test_a_start_offset_equals_skipping(order, batch_size, epoch, data):
    batches = TrainingBatches(order, batch_size, 3)
    whole = at(batches, epoch)
    start = data.draw(st.integers(0, len(whole)))
    assert at(batches, epoch, start) == whole[start:]
    assert len(batches) == len(whole)


def test_the_start_offset_holds_for_its_epoch_only():
    batches = TrainingBatches(Permutation(100), 10, 0)
    batches.epoch, batches.start = 2, 7
    batches.set_epoch(2)
    assert len(list(batches)) == 3
    batches.set_epoch(3)
    assert len(list(batches)) == 10


@fast
@given(order=orders, share=st.integers(1, 8), world=st.integers(1, 5), epoch=st.integers(0, 5))
def test_rank_shares_in_order_are_the_global_batch(order, share, world, epoch):
    whole = at(TrainingBatches(order, share * world, 1), epoch)
    ranks = [at(TrainingBatches(order, share * world, 1, rank=rank, world=world), epoch) for rank in range(world)]
    assert [flat(parts) for parts in zip(*ranks, strict=True)] == whole
    assert all(len(batch) == share for rank in ranks for batch in rank)


@fast
@given(size=st.integers(20, 200), batch_size=st.integers(1, 20))
def test_a_training_epoch_visits_each_item_at_most_once_and_drops_less_than_a_batch(size, batch_size):
    seen = flat(TrainingBatches(Permutation(size), batch_size, 0))
    assert len(set(seen)) == len(seen)
    assert size - batch_size < len(seen) <= size
    assert set(seen) <= set(range(size))


@fast
@given(size=st.integers(1, 200), share=st.integers(1, 8), world=st.integers(1, 5))
def test_evaluation_visits_each_item_once_and_equally_often_on_all_ranks(size, share, world):
    assume(size >= world)
    ranks = [evaluation_batches(size, share * world, rank=rank, world=world) for rank in range(world)]
    seen = [item for rank in ranks for batch in rank for item in batch]
    assert sorted(seen) == list(range(size))
    assert len({len(rank) for rank in ranks}) == 1
    assert len(ranks[0]) == len(evaluation_batches(size, share * world, world=world))
    assert all(0 < len(batch) <= max(share, 2) for rank in ranks for batch in rank)
    for rank, batches in enumerate(ranks):
        assert flat(batches) == list(range(rank, size, world))


def test_a_frozen_order_repeats_for_overfitting():
    batches = TrainingBatches(Permutation(50), 10, 0, frozen=True)
    assert at(batches, 0) == at(batches, 5)


@pytest.mark.parametrize(("batch_size", "world"), [(10, 3), (0, 1), (-4, 2), (1, 2)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, world):
    with pytest.raises(ConfigError, match=rf"data\.loader\.batch_size={batch_size} .*multiple of the {world} in use"):
        TrainingBatches(Permutation(100), batch_size, 0, world=world)


def test_a_batch_larger_than_an_epoch_is_refused():
    with pytest.raises(ConfigError, match=r"data\.loader\.batch_size=101 is more than the 100 sequences"):
        TrainingBatches(Permutation(100), 101, 0)


def test_fewer_items_than_devices_are_refused():
    with pytest.raises(ConfigError, match=r"2 sequences cannot be evaluated on trainer\.devices=4"):
        evaluation_batches(2, 4, world=4)

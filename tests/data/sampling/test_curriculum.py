"""A curriculum's batches: short ones first, all allowed items equally often, and a function of seed, epoch and step."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xformer.data.sampling.buckets import TokenBatches
from xformer.data.sampling.curriculum import CurriculumBatches, Pace
from xformer.data.sampling.sampler import Fresh, Permutation, TrainingBatches
from xformer.data.split import Split
from xformer.errors import ConfigError

SIZE = 60


class Items(Split):
    def __init__(self, lengths):
        self.lengths = None if lengths is None else np.array(lengths)

    def __len__(self):
        return SIZE

    def __getitems__(self, indices):
        return list(indices)


def lengths(seed=0):
    return np.random.default_rng(seed).integers(1, 20, SIZE)


def build(items=None, *, initial=0.1, batches=20, order=None, size=6, **place):
    inner = TrainingBatches(order or Permutation(SIZE), size, seed=3, **place)
    return CurriculumBatches(inner, items or Items(lengths()), Pace(initial, batches), len(inner))


def run(sampler, epochs=3):
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += list(sampler)
    return found


def test_the_share_grows_linearly_to_all():
    pace = Pace(0.2, 10)
    assert [round(pace.share(batch), 3) for batch in (0, 5, 10, 11, 999)] == [0.2, 0.6, 1, 1, 1]


def test_a_batch_has_the_shortest_share_alone_and_in_the_end_everything():
    sampler, inner = build(), TrainingBatches(Permutation(SIZE), 6, seed=3)
    ordered = np.sort(lengths())
    for number, batch in enumerate(run(sampler)):
        allowed = int(min(1, 0.1 + 0.9 * number / 20) * SIZE)
        assert max(lengths()[batch]) <= ordered[allowed - 1]
    inner.set_epoch(2)
    sampler.set_epoch(2)
    assert list(sampler) == list(inner)


@given(st.integers(1, SIZE), st.integers(0, 5))
def test_allowed_items_are_equally_frequent_and_none_becomes_longer(allowed, seed):
    sampler = build(Items(lengths(seed)))
    items = np.random.default_rng(seed).permutation(SIZE).tolist()
    replaced = sampler.replaced(items, (allowed + 0.5) / SIZE)
    counts = np.bincount(replaced, minlength=SIZE)
    assert np.count_nonzero(counts) == allowed
    assert set(counts[counts > 0]) <= {SIZE // allowed, -(-SIZE // allowed)}
    assert (lengths(seed)[replaced] <= lengths(seed)[items]).all()


def test_it_continues_inside_an_epoch_and_is_the_same_on_any_number_of_devices():
    whole = run(build())
    sampler = build()
    sampler.set_epoch(1)
    sampler.start = 4
    assert list(sampler) == whole[14:20]
    assert (sampler.epoch, sampler.start) == (1, 4)
    shares = zip(*(run(build(rank=rank, world=2)) for rank in range(2)), strict=True)
    assert [first + second for first, second in shares] == whole


def test_fresh_items_keep_their_draws():
    sampler = build(order=Fresh(SIZE))
    found = list(itertools.chain.from_iterable(run(sampler)))
    assert len(set(found)) == len(found)
    first = sorted(item % SIZE for item in list(sampler.replaced(found[:6], 0.1)))
    assert set(first) <= set(np.argsort(lengths(), kind="stable")[:6].tolist())


@pytest.mark.parametrize("items", [Items(None), Items([4] * SIZE)])
def test_items_that_are_all_the_same_are_refused(items):
    with pytest.raises(ConfigError, match="all training items of these data are equally long: leave it out"):
        build(items)


def test_a_curriculum_over_batches_by_tokens_stays_within_the_budget_and_ends_as_they_are() -> None:
    items, budget = Items(lengths()), 40
    inner = TokenBatches(items.lengths, budget, 3)
    found = run(CurriculumBatches(inner, items, Pace(0.1, len(inner)), len(inner)), epochs=2)
    assert all(len(batch) * items.lengths[batch].max() <= budget for batch in found)
    assert max(items.lengths[batch].max() for batch in found[:2]) < items.lengths.max()
    inner.set_epoch(1)
    assert found[len(inner) :] == list(inner)

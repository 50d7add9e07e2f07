"""A curriculum's batches: short ones first, all allowed items equally often, and a function of seed, epoch and step."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.sampling.buckets import TokenBatches
from xformer.data.sampling.curriculum import Pace, ShorterItems
from xformer.data.sampling.order import Fresh, Permutation
from xformer.data.sampling.sampler import TrainingBatches
from xformer.errors import ConfigError

SIZE = 60


def lengths(seed=0):
    return np.random.default_rng(seed).integers(1, 20, SIZE)


def build(order=None, **place):
    batches = TrainingBatches(order or Permutation(SIZE), 6, seed=3, **place)
    batches.curriculum = ShorterItems(lengths(), Pace(0.1, 20), len(batches))
    return batches


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


@settings(deadline=None)
@given(st.integers(1, SIZE), st.integers(0, 5))
def test_allowed_items_are_equally_frequent_and_none_becomes_longer(allowed, seed):
    items = np.random.default_rng(seed).permutation(SIZE)
    replaced = ShorterItems(lengths(seed), Pace(0.1, 20), 10).replaced(items, (allowed + 0.5) / SIZE)
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
    sampler = build(Fresh(SIZE))
    found = list(itertools.chain.from_iterable(run(sampler)))
    assert len(set(found)) == len(found)
    first = sorted(item % SIZE for item in list(sampler.curriculum.replaced(np.array(found[:6]), 0.1)))
    assert set(first) <= set(np.argsort(lengths(), kind="stable")[:6].tolist())


@pytest.mark.parametrize("equal", [None, np.full(SIZE, 4)])
def test_items_that_are_all_the_same_are_refused(equal):
    with pytest.raises(ConfigError, match="all training items of these data are equally long: leave it out"):
        ShorterItems(equal, Pace(0.1, 20), 10)


def test_a_curriculum_over_batches_by_tokens_stays_within_the_budget_and_ends_as_they_are() -> None:
    plain, paced = (TokenBatches(lengths(), 40, 3) for _ in range(2))
    paced.curriculum = ShorterItems(lengths(), Pace(0.1, len(plain)), len(plain))
    found = run(paced, epochs=2)
    assert all(len(batch) * lengths()[batch].max() <= 40 for batch in found)
    assert max(lengths()[batch].max() for batch in found[:2]) < lengths().max()
    plain.set_epoch(1)
    assert found[len(plain) :] == list(plain)

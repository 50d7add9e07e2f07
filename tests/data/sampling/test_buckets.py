"""Batches by a budget of tokens: within the budget, every item once, the same on any number of devices."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_base import LIGHTNINGS_OWN, Recorder, fit
from xformer.data.sampling.buckets import TokenBatches, token_evaluation_batches
from xformer.errors import ConfigError

fast = settings(deadline=None, max_examples=60)
some = st.lists(st.integers(1, 12), min_size=5, max_size=120).map(np.array)
worlds = st.integers(1, 4)
budgets = st.integers(48, 200)


def at(batches, epoch=0, start=0):
    batches.set_epoch(epoch)
    batches.start = start
    return list(batches)


def flat(batches):
    return [item for batch in batches for item in batch]


@fast
@given(lengths=some, budget=budgets, seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_training_visits_each_item_once_within_the_budget(lengths, budget, seed, epoch):
    batches = TokenBatches(lengths, budget, seed)
    found = at(batches, epoch)
    assert sorted(flat(found)) == list(range(len(lengths)))
    assert len(found) == len(batches)
    assert all(len(batch) * lengths[batch].max() <= budget for batch in found)


@fast
@given(lengths=some, budget=budgets, epoch=st.integers(0, 9))
def test_a_batch_is_full_and_of_neighbouring_lengths(lengths, budget, epoch):
    found = [lengths[batch] for batch in at(TokenBatches(lengths, budget, 0), epoch)]
    found.sort(key=lambda batch: (batch.max(), batch.min()), reverse=True)
    for longer, shorter in pairwise(found):
        assert longer.min() >= shorter.max()
    for longer, shorter in pairwise(found):
        # One item more, of those that came next, would not have fitted.
        assert longer.max() == shorter.max() or (len(longer) + 1) * longer.max() > budget


@fast
@given(lengths=some, budget=budgets, world=worlds, epoch=st.integers(0, 9))
def test_ranks_share_the_batches_of_one_device(lengths, budget, world, epoch):
    alone = at(TokenBatches(lengths, budget, 1), epoch)
    ranks = [at(TokenBatches(lengths, budget, 1, rank=rank, world=world), epoch) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    shared = [sorted(flat(shares)) for shares in zip(*ranks, strict=True)]
    whole = [sorted(batch) for batch in alone if len(batch) >= world]
    # A rest that cannot be shared is not visited; only then does the order of batches differ too.
    assert sorted(shared) == sorted(whole)
    if len(whole) == len(alone):
        assert shared == whole
    assert len(lengths) - len(flat(shared)) < world
    for shares in zip(*ranks, strict=True):
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= 1


@fast
@given(lengths=some, budget=budgets, world=worlds)
def test_evaluation_visits_each_item_once_and_equally_often_on_all_ranks(lengths, budget, world):
    ranks = [token_evaluation_batches(lengths, budget, rank=rank, world=world) for rank in range(world)]
    assert sorted(flat(flat(ranks))) == list(range(len(lengths)))
    assert {len(rank) for rank in ranks} == {len(token_evaluation_batches(lengths, budget, world=world))}
    assert all(batch for rank in ranks for batch in rank)
    for shares in zip(*ranks, strict=True):
        together = flat(shares)
        fits = len(together) * lengths[together].max() <= budget
        assert fits or max(map(len, shares)) == 2


@fast
@given(lengths=some, seed=st.integers(0, 99), epoch=st.integers(0, 9), history=st.lists(st.integers(0, 9)))
def test_the_order_depends_on_seed_and_epoch_alone(lengths, seed, epoch, history):
    first = at(TokenBatches(lengths, 60, seed), epoch)
    np.random.seed(len(history))  # noqa: NPY002 - the global generator is what must not matter
    batches = TokenBatches(lengths, 60, seed)
    for earlier in history:
        assert len(at(batches, earlier)) == len(batches)
    assert at(batches, epoch) == first
    start = len(first) // 2
    assert at(batches, epoch, start) == first[start:]


def test_another_epoch_or_seed_mixes_other_items_and_orders_the_batches_anew():
    lengths = np.random.default_rng(0).integers(3, 9, 400)

    def found(seed, epoch):
        return at(TokenBatches(lengths, 80, seed), epoch)

    for other in (found(0, 1), found(1, 0)):
        assert [lengths[batch].max() for batch in other] != [lengths[batch].max() for batch in found(0, 0)]
        assert Counter(map(frozenset, other)) != Counter(map(frozenset, found(0, 0)))
    assert at(TokenBatches(lengths, 80, 0, frozen=True), 5) == found(0, 0)


@pytest.mark.parametrize("world", [1, 2])
def test_an_item_beyond_the_budget_is_refused(world):
    least = 30 * world
    TokenBatches(np.array([5, 30]), least, 0, world=world)
    for kind in (TokenBatches, token_evaluation_batches):
        with pytest.raises(ConfigError, match=rf"tokens_per_batch={least - 1} is too small .* at least {least}"):
            kind(np.array([5, 30]), least - 1, *([0] if kind is TokenBatches else []), world=world)


def test_fewer_items_than_devices_are_refused():
    with pytest.raises(ConfigError, match=r"1 sequences cannot be shared by trainer\.devices=2"):
        TokenBatches(np.array([5]), 100, 0, world=2)
    with pytest.raises(ConfigError, match=r"1 sequences cannot be evaluated on trainer\.devices=2"):
        token_evaluation_batches(np.array([5]), 100, world=2)


def test_data_without_lengths_are_refused(ready):
    module = ready("digits")
    module.loader = replace(module.loader, tokens_per_batch=1000)
    with pytest.raises(ConfigError, match=r"data\.loader\.tokens_per_batch=1000 needs sequences of different lengths"):
        module.train_dataloader()


SIZES = {"train_size": 300, "val_size": 40, "test_size": 30}


@pytest.mark.parametrize(("name", "field"), [("listops", "tokens"), ("transduction", "source_tokens")])
def test_a_batch_is_padded_to_its_longest_and_holds_the_budget(ready, name, field):
    module = ready(name, **SIZES, tokens_per_batch=500)
    for split, loader in (("train", module.train_dataloader()), ("val", module.val_dataloader())):
        rows = 0
        for batch in loader:
            tokens = getattr(batch, field)
            mask = batch.padding_mask if name == "listops" else batch.source_padding_mask
            assert tokens.numel() <= 500
            assert tokens.shape[1] == mask.sum(dim=1).max()
            rows += len(tokens)
        assert rows == len(module.splits[split])


@LIGHTNINGS_OWN
@pytest.mark.parametrize(
    ("hook", "stop", "workers", "options"),
    [
        ("batch", 3, 0, {}),
        ("batch", 10, 2, {}),
        ("batch", 11, 0, {}),
        ("epoch", 10, 0, {}),
        ("batch", 7, 0, {"accumulate_grad_batches": 2}),
        ("validation", 6, 0, {"val_check_interval": 2}),
    ],
)
def test_a_killed_run_sees_the_batches_it_would_have_seen(ready, tmp_path, hook, stop, workers, options):
    def data():
        return ready("listops", **SIZES, tokens_per_batch=1500, num_workers=workers)

    whole = fit(Recorder(), data(), **options)
    assert len(whole) == 3 * 10
    assert whole[0][1] not in [tokens for _, tokens in whole[1:]]
    first = Recorder(stop, tmp_path / "killed.ckpt", hook)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(first, data(), **options)
    assert first.seen == whole[:stop]
    assert fit(Recorder(), data(), tmp_path / "killed.ckpt", **options) == whole[stop:]


@LIGHTNINGS_OWN
def test_overfitting_repeats_the_same_batches(ready):
    seen = fit(Recorder(), ready("listops", **SIZES, tokens_per_batch=1500), overfit_batches=2)
    assert [tokens for _, tokens in seen[:2]] == [tokens for _, tokens in seen[4:]]
    assert len(seen) == 6

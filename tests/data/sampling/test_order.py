import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.sampling.order import Balanced, Order
from xformer.data.sampling.sampler import TrainingBatches


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(0, 3), min_size=4, max_size=60), seed=st.integers(0, 9))
def test_an_epoch_holds_each_class_equally_often_and_its_items_evenly(labels, seed):
    labels = np.array(labels)
    order = Balanced(labels)
    assert isinstance(order, Order)
    drawn = order(np.random.default_rng(seed))
    present = np.unique(labels)
    share = max(1, len(labels) // len(present))
    assert len(drawn) == len(order) == share * len(present)
    for label in present:
        items = np.flatnonzero(labels == label)
        times = np.bincount(drawn[labels[drawn] == label], minlength=len(labels))[items]
        assert times.sum() == share
        assert times.max() - times.min() <= 1
    np.testing.assert_array_equal(drawn, order(np.random.default_rng(seed)))


def test_epochs_differ_and_depend_on_seed_and_epoch_alone():
    labels = np.array([0] * 90 + [1] * 10)

    def epoch(seed, number):
        batches = TrainingBatches(Balanced(labels), 10, seed)
        batches.set_epoch(number)
        return [tuple(batch) for batch in batches]

    assert epoch(0, 1) == epoch(0, 1)
    assert len({tuple(epoch(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4
    frequent = {item for number in range(12) for batch in epoch(0, number) for item in batch if item < 90}
    assert frequent == set(range(90)), "an epoch draws another part of a frequent class"


def test_the_classes_are_mixed_within_an_epoch():
    drawn = Balanced(np.array([0] * 500 + [1] * 500))(np.random.default_rng(0))
    assert np.mean(drawn[:500] < 500) == pytest.approx(0.5, abs=0.1)

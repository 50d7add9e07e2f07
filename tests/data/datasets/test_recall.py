"""Recall data: an answer is what a dictionary gives, and the distribution is Zoology's."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.conftest import SMALL
from xformer.config.plan import Plan
from xformer.data.batch import IGNORED
from xformer.errors import ConfigError, DataError


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"vocabulary": 10, "length": 16, "random_non_queries": False}, {"pairs": 16, "power_a": 1.0}]
)
def test_an_answer_is_what_a_dictionary_gives(ready, options, fresh):
    data = ready("recall", fresh=fresh, train_size=64, val_size=40, **options)
    half, context = data.vocabulary // 2, 2 * data.pairs
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for tokens, labels in zip(*next(iter(loader)), strict=True):
            row = tokens.tolist()
            answers = {}
            for place in range(0, context, 2):
                answers[row[place]] = row[place + 1]
            assert len(answers) == len(set(answers.values())) == data.pairs
            assert all(0 < key < half <= value < data.vocabulary for key, value in answers.items())
            asked = [place for place, label in enumerate(labels.tolist()) if label != IGNORED]
            assert sorted(row[place] for place in asked) == sorted(answers)
            assert [answers[row[place]] for place in asked] == labels[asked].tolist()
            assert all(place >= context and place % 2 == 0 for place in asked)
            if not data.random_non_queries:
                assert all(row[place] == 0 for place in range(context, len(row)) if place not in asked)


def test_gaps_follow_the_power_law(ready):
    """The first gap that is drawn, of one pair: probability proportional to g^(a - 1), g from 1."""
    data = ready("recall", pairs=1, length=12, power_a=0.5, val_size=4000)
    labels = data.splits["val"].__getitems__(range(4000)).labels.numpy()
    places = np.argmax(labels != IGNORED, axis=1)
    expected = np.array([1, 2, 3, 4, 5]) ** -0.5
    expected /= expected.sum()
    counts = np.bincount((places - 2) // 2, minlength=5)
    assert len(counts) == 5
    deviations = (counts - 4000 * expected) / np.sqrt(4000 * expected * (1 - expected))
    assert np.abs(deviations).max() < 4


def test_a_random_filler_is_any_token(ready):
    data = ready("recall", vocabulary=20, val_size=500)
    tokens = data.splits["val"].__getitems__(range(500)).tokens[:, 9::2]
    assert set(tokens.unique().tolist()) == set(range(20))


def test_numbers_can_be_typed_and_what_is_none_is_refused(ready):
    data = ready("recall")
    assert data.encode("3 255").tolist() == [3, 255]
    assert data.decode([3, 255]) == "3 255"
    for text in ("256", "a 3", ""):
        with pytest.raises(DataError, match="use token numbers from 0 to 255"):
            data.encode(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 63}, r"data\.length=63 is odd, .*: use 64\."),
        ({"pairs": 17}, r"data\.length=64 is too short for data\.pairs=17 .*: use at least 68\."),
        ({"vocabulary": 9}, r"data\.vocabulary=9 has too few keys and values for data\.pairs=4: use at least 10\."),
    ],
)
def test_bounds_that_admit_no_data_are_refused(build, options, words):
    with pytest.raises(ConfigError, match=words):
        build("recall", **options)


def test_the_smallest_bounds_named_do_work(ready):
    for options in ({"length": 16}, {"vocabulary": 10}):
        assert len(next(iter(ready("recall", **options).val_dataloader())).tokens) > 0


def test_loss_and_accuracy_count_the_queries_alone_and_nothing_is_continued(compose_job):
    """The mean over the labels of a dictionary's answers, from the probabilities written out."""
    plan = Plan.of(compose_job(*SMALL, "task=language_modeling", "data=recall", "data.length=32").config)
    data, task = plan.load_data(), plan.build_task().eval()
    batch = data.splits["val"].__getitems__(range(6))
    outcome = task.step(batch)
    losses, right = [], []
    for scores, labels in zip(outcome.logits.detach(), batch.labels.tolist(), strict=True):
        for place, label in enumerate(labels):
            if label != IGNORED:
                losses.append(-scores[place].log_softmax(0)[label])
                right.append(scores[place].argmax() == label)
    assert len(losses) == 6 * 4
    assert_close(outcome.loss.detach(), torch.stack(losses).mean())
    task.val_metrics.update(outcome.logits, outcome.labels)
    assert_close(task.val_metrics.compute()["val/accuracy"], torch.stack(right).float().mean())
    assert task.epilogue(data) is None

"""Metrics: what they count, over batches and processes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torch.nn.functional import log_softmax
from torch.testing import assert_close

from xformer.data.batch import IGNORED
from xformer.tasks.metrics import BitsPerByte, Perplexity, SequenceAccuracy, TokenAccuracy, classification_metrics


@given(st.integers(2, 6), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 99))
def test_metrics_are_those_of_scikit_learn(classes: int, sizes: list[int], seed: int) -> None:
    """Over several batches, and of the classes that occur."""
    generator = torch.Generator().manual_seed(seed)
    metrics = classification_metrics(classes, "val/")
    batches = [
        (torch.randn(size, classes, generator=generator), torch.randint(classes, (size,), generator=generator))
        for size in sizes
    ]
    for logits, labels in batches:
        metrics.update(logits, labels)
    predicted = torch.cat([logits.argmax(-1) for logits, _ in batches])
    actual = torch.cat([labels for _, labels in batches])
    found = metrics.compute()
    assert float(found["val/accuracy"]) == pytest.approx(accuracy_score(actual, predicted))
    assert float(found["val/macro_f1"]) == pytest.approx(f1_score(actual, predicted, average="macro", zero_division=0))


def test_perplexity_weighs_tokens_and_not_batches() -> None:
    perplexity, bits = Perplexity(), BitsPerByte(0.25)
    logits, labels = torch.randn(3, 8, 5), torch.randint(5, (3, 8))
    labels[0, 1:] = IGNORED
    labels[2, 4:] = IGNORED
    for index in (slice(0, 1), slice(1, 3)):
        perplexity.update(logits[index], labels[index])
        bits.update(logits[index], labels[index])
    real = labels != IGNORED
    nats = -log_softmax(logits, -1)[real].gather(1, labels[real][:, None])
    assert len(nats) == 13
    assert_close(perplexity.compute(), nats.mean().exp())
    assert_close(bits.compute(), nats.sum() / math.log(2) / (13 / 0.25))


def test_processes_add_up_what_they_have_seen() -> None:
    parts, alone, whole = (Perplexity(), Perplexity()), (Perplexity(), Perplexity()), Perplexity()
    for part, other, size in zip(parts, alone, (2, 7), strict=True):
        logits, labels = 3 * torch.randn(1, size, 5), torch.randint(5, (1, size))
        for metric in (part, other, whole):
            metric.update(logits, labels)
    parts[0].merge_state(parts[1])
    assert_close(parts[0].compute(), whole.compute())
    assert abs((alone[0].compute() + alone[1].compute()) / 2 - whole.compute()) > 1e-3


def test_the_metrics_count_what_is_real() -> None:
    labels = torch.tensor([[1, 2, IGNORED], [0, 1, 2]])
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0], [0, 2, 2]]), 3).float()
    token, sequence = TokenAccuracy(), SequenceAccuracy()
    token.update(logits, labels)
    sequence.update(logits, labels)
    assert_close(token.compute(), torch.tensor(4 / 5))
    assert_close(sequence.compute(), torch.tensor(1 / 2))

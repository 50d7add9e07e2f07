"""BLEU and chrF: sacrebleu's own figures, however the texts are cut into batches and spread over processes."""

import numpy as np
import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchmetrics.text import CHRFScore, SacreBLEUScore

from xformer.tasks.text_metrics import BLEU, ChrF, TextMetric

KINDS = [(BLEU, sacrebleu.corpus_bleu), (ChrF, sacrebleu.corpus_chrf)]
texts = st.lists(
    st.tuples(*[st.text(alphabet="abc .,ü\u2028€😀", max_size=30)] * 2), min_size=1, max_size=12
)  # fmt: skip


def sentences(count: int) -> tuple[list[str], list[str]]:
    """References, and the same with some words changed."""
    generator = np.random.default_rng(0)
    references, written = [], []
    for _ in range(count):
        words = generator.choice(["das", "Haus,", "grüne", "ist", "nicht", "3.5", "weit.", "U-Bahn"], 14)
        changed = np.where(generator.random(14) < 0.15, "etwas", words)
        references.append(" ".join(words))
        written.append(" ".join(changed[: generator.integers(9, 15)]))
    return written, references


def fed(metric: TextMetric, written: list[str], references: list[str], size: int) -> TextMetric:
    for first in range(0, len(written), size):
        metric.update(written[first : first + size], references[first : first + size])
    return metric


@pytest.mark.parametrize(("kind", "expected"), KINDS)
def test_the_score_is_sacrebleus(kind: type[TextMetric], expected: object) -> None:
    @settings(max_examples=40, deadline=None)
    @given(texts, st.integers(1, 5))
    def check(pairs: list[tuple[str, str]], size: int) -> None:
        written, references = map(list, zip(*pairs, strict=True))
        found = fed(kind(), written, references, size).compute()
        assert_close(found, torch.tensor(expected(written, [references]).score))  # type: ignore[operator]

    check()


@pytest.mark.parametrize(
    ("kind", "other"), [(BLEU, SacreBLEUScore()), (ChrF, CHRFScore(n_word_order=0, return_sentence_level_score=False))]
)
def test_another_implementation_agrees(kind: type[TextMetric], other: torch.nn.Module) -> None:
    written, references = sentences(40)
    found = fed(kind(), written, references, 7).compute()
    assert 40 < found < 99
    assert_close(found, 100 * other(written, [[text] for text in references]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("kind", "expected"), KINDS)
def test_processes_are_scored_as_one_corpus(kind: type[TextMetric], expected: object) -> None:
    written, references = sentences(21)
    ranks = [fed(kind(), written[rank::2], references[rank::2], 4) for rank in range(2)]
    whole = [iter([torch.cat(rank.written), torch.cat(rank.references)]) for rank in ranks]

    def gather(state: torch.Tensor, group: object) -> list[torch.Tensor]:
        own, other = (next(states) for states in whole)
        assert torch.equal(state, own)
        return [own, other]

    ranks[0].dist_sync_fn, ranks[0].distributed_available_fn = gather, lambda: True
    together = [*written[::2], *written[1::2]], [[*references[::2], *references[1::2]]]
    assert_close(ranks[0].compute(), torch.tensor(expected(*together).score))  # type: ignore[operator]


def test_every_text_needs_its_reference() -> None:
    with pytest.raises(ValueError, match="2 texts cannot be scored against 1 references"):
        BLEU().update(["a", "b"], ["a"])


def test_a_zero_inside_a_text_does_not_cut_it() -> None:
    metric = ChrF()
    metric.update(["one\0two"], ["one two"])
    assert metric.compute() == 100

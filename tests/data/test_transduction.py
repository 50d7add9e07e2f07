"""Transduction data: what is asked is what is written, and no split knows another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.batch import IGNORED
from xformer.data.transduction import BEGIN, END, PADDING, Transduction
from xformer.errors import ConfigError

DEFAULTS: dict[str, Any] = {
    "kind": "reverse", "symbols": 6, "min_length": 1, "max_length": 9, "train_size": 60, "val_size": 20,
    "test_size": 20, "generation_seed": 0, "batch_size": 4, "num_workers": 0,
}  # fmt: skip


def build(seed: int = 0, **options: Any) -> Transduction:
    data = Transduction(seed, Path("unused"), **{**DEFAULTS, **options})
    data.prepare_data()
    data.setup("fit")
    return data


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["copy", "reverse", "sort"]), st.integers(2, 9), st.integers(3, 6), st.integers(0, 3))
def test_a_batch_holds_what_is_asked(kind: str, symbols: int, shortest: int, seed: int) -> None:
    data = build(kind=kind, symbols=symbols, min_length=shortest, generation_seed=seed)
    batch = data.splits["train"].__getitems__(range(8))
    for source, real, target, labels in zip(
        batch.source_tokens, batch.source_padding_mask, batch.target_tokens, batch.labels, strict=True
    ):
        *symbols_read, last = source[real].tolist()
        expected = {"copy": list, "reverse": lambda s: s[::-1], "sort": sorted}[kind](symbols_read)  # type: ignore[operator]
        assert last == END
        assert target[target != PADDING].tolist() == [BEGIN, *expected]
        assert labels[labels != IGNORED].tolist() == [*expected, END]
        assert shortest <= len(expected) <= 9
        assert all(3 <= symbol < data.facts.vocabulary for symbol in expected)
    assert batch.source_tokens.shape[1] == batch.source_padding_mask.sum(1).max() <= data.facts.length
    assert data.decode(batch.labels[0].tolist()) == data.decode(batch.target_tokens[0].tolist())


def test_no_source_occurs_twice_and_lengths_are_spread() -> None:
    data = build(train_size=900, val_size=50, test_size=50, min_length=4)
    sources = [tuple(s.tolist()) for split in data.splits.values() for s in split.sources]  # type: ignore[attr-defined]
    assert len(set(sources)) == len(sources) == 1000
    counts = np.bincount([len(s) for s in sources])[4:]
    assert counts.min() > 100


def test_the_sources_depend_on_the_generation_seed_alone() -> None:
    def sources(**options: Any) -> list[list[int]]:
        return [s.tolist() for s in build(**options).splits["test"].sources]  # type: ignore[attr-defined]

    assert sources() == sources(seed=5) == sources(kind="sort") == sources(batch_size=8)
    assert sources() != sources(generation_seed=1)
    assert build().fingerprint == build(seed=5).fingerprint
    assert len({build(kind=kind).fingerprint for kind in ("copy", "reverse", "sort")}) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symbols": 1}, "data.symbols=1 admits no data: use at least 2."),
        ({"min_length": 5, "max_length": 4}, "data.max_length=4 admits no data: use at least 5."),
        ({"symbols": 2, "max_length": 3}, "data.max_length=3 and data.symbols=2 admit only about 14 different"),
    ],
)
def test_bounds_that_admit_too_little_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(**options)

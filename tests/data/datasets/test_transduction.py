"""Transduction data: what is asked is what is written, and no split knows another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from xformer.data.batch import IGNORED
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.datasets.transduction import BEGIN, END, PADDING, Transduction
from xformer.errors import ConfigError

DEFAULTS: dict[str, Any] = {
    "kind": "reverse", "symbols": 6, "min_length": 1, "max_length": 9, "test_lengths": [],
}  # fmt: skip
GENERATION: dict[str, Any] = {"train_size": 60, "val_size": 20, "test_size": 20, "fresh": False, "seed": 0}


def build(seed: int = 0, batch_size: int = 4, generation_seed: int = 0, **options: Any) -> Transduction:
    generation = {key: options.pop(key, value) for key, value in GENERATION.items()} | {"seed": generation_seed}
    data = Transduction(
        DataContext(seed, Path("unused")),
        generation=FreshGenerationConfig(**generation),
        loader=LoaderConfig(batch_size=batch_size, num_workers=0),
        **{**DEFAULTS, **options},
    )
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
        assert all(3 <= symbol < data.spec.vocabulary for symbol in expected)
    assert batch.source_tokens.shape[1] == batch.source_padding_mask.sum(1).max() <= data.spec.length
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
        ({"min_length": 5, "max_length": 4}, "data.max_length=4 must be at least data.min_length=5"),
        ({"test_lengths": [5, 5]}, r"data.test_lengths=\[5, 5\] names a length twice"),
        ({"symbols": 2, "test_lengths": [3]}, "data.max_length=3 and data.symbols=2 admit only about"),
        ({"symbols": 2, "max_length": 3}, "data.max_length=3 and data.symbols=2 admit only about 14 different"),
    ],
)
def test_bounds_that_admit_too_little_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(**options)


def test_further_lengths_are_tested_beside_those_of_training() -> None:
    data = build(test_lengths=[20, 5])
    assert {len(s) for s in data.splits["test@20"].sources} == {20}  # type: ignore[attr-defined]
    assert {len(s) for s in data.splits["test@5"].sources} == {5}  # type: ignore[attr-defined]
    for split in ("train", "val", "test"):
        assert max(len(s) for s in data.splits[split].sources) <= 9  # type: ignore[attr-defined]
    assert data.spec.length == 21
    assert data.spec.test_lengths == [20, 5]
    sources = [tuple(s.tolist()) for split in data.splits.values() for s in split.sources]  # type: ignore[attr-defined]
    assert len(set(sources)) == len(sources) == 140
    loaders = data.test_dataloader()
    assert isinstance(loaders, list)
    assert [next(iter(loader)).source_tokens.shape[1] for loader in loaders[1:]] == [21, 6]
    plain = build()
    assert plain.fingerprint == build(test_lengths=[]).fingerprint != data.fingerprint
    for name in ("train", "val", "test"):
        alike = plain.splits[name], data.splits[name]
        assert [len(s.sources) for s in alike] == [data.sizes[name]] * 2  # type: ignore[attr-defined]


def test_fresh_sequences_have_the_lengths_of_the_others_and_are_never_held_out() -> None:
    options = {"symbols": 2, "max_length": 7, "train_size": 80, "val_size": 20, "test_size": 20}
    fixed, fresh = build(**options), build(**options, fresh=True)
    held_out = {tuple(s.tolist()) for name in ("val", "test") for s in fixed.splits[name].sources}  # type: ignore[attr-defined]
    items = fresh.splits["train"]
    drawn = set()
    for epoch in range(1, 20):
        batch = items.__getitems__([epoch * 80 + i for i in range(80)])
        lengths = batch.source_padding_mask.sum(1)
        assert lengths.tolist() == fixed.splits["train"].lengths.tolist()  # type: ignore[attr-defined]
        for row, length in zip(batch.source_tokens.tolist(), lengths.tolist(), strict=True):
            drawn.add(tuple(row[: length - 1]))
    assert not drawn & held_out
    assert len(drawn) > 100
    for name in ("val", "test"):
        assert_close(fresh.splits[name].__getitems__(range(20)), fixed.splits[name].__getitems__(range(20)))
    assert fresh.fingerprint != fixed.fingerprint

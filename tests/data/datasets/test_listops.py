import logging
import random
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.datasets import trees
from xformer.data.datasets.listops import ListOps
from xformer.data.floors import by_feature, majority
from xformer.errors import ConfigError

SMALL_TREES = {"train_size": 300, "val_size": 40, "test_size": 60}
FUNCTIONS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def value_of(words: list[str]) -> int:
    """A reader that shares nothing with the generator: recursive, over words, with Python's own functions."""

    def read(position: int) -> tuple[int, int]:
        if words[position] not in FUNCTIONS:
            return int(words[position]), position + 1
        function, position, values = FUNCTIONS[words[position]], position + 1, []
        while words[position] != "]":
            value, position = read(position)
            values.append(value)
        assert len(values) >= 2
        return function(values), position + 1

    value, end = read(0)
    assert end == len(words)
    return value


def depth_of(words: list[str]) -> int:
    depth = deepest = 0
    for word in words:
        depth += (word in FUNCTIONS) - (word == "]")
        deepest = max(deepest, depth)
    return deepest + 1


def words_of(tokens) -> list[str]:
    return [trees.SYMBOLS[token] for token in tokens]


def all_trees(module: ListOps, split: str) -> list[bytes]:
    batch = module.splits[split].__getitems__(range(len(module.splits[split])))
    return [bytes(row[real].tolist()) for row, real in zip(batch.tokens, batch.padding_mask, strict=True)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[MIN 4 2 9 ]", 2),
        ("[MAX 4 2 9 ]", 9),
        ("[MED 4 2 9 ]", 4),
        ("[MED 1 2 ]", 1),
        ("[MED 9 0 4 7 ]", 5),
        ("[SM 4 2 9 ]", 5),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[SM [MAX 1 8 ] [MED 3 [SM 9 9 ] 5 ] 6 ]", 9),
    ],
)
def test_the_independent_reader_reads_hand_written_trees(text, value):
    assert value_of(text.split()) == value


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=2, max_size=10)), max_size=8))
def test_operators_agree_with_python(calls):
    functions = list(FUNCTIONS.values())
    result = trees.apply(
        np.array([operator for operator, _ in calls], dtype=np.int64),
        np.array([value for _, values in calls for value in values], dtype=np.int64),
        np.array([len(values) for _, values in calls], dtype=np.int64),
    )
    assert result.tolist() == [functions[operator](values) for operator, values in calls]


@pytest.mark.parametrize(
    ("max_depth", "max_args", "min_length", "max_length"), [(2, 2, 1, 5), (6, 5, 20, 128), (10, 10, 1, 3000)]
)
def test_labels_are_the_values_and_bounds_hold(max_depth, max_args, min_length, max_length):
    found = trees.expressions(np.random.default_rng(5), 500, max_depth, max_args, min_length, max_length)
    assert len(found.values) > 50
    for tokens, value in zip(np.split(found.tokens, np.cumsum(found.lengths)[:-1]), found.values, strict=True):
        words = words_of(tokens)
        assert value_of(words) == value
        assert min_length < len(words) < max_length
        assert depth_of(words) <= max_depth


def test_the_distribution_is_that_of_a_plain_recursive_generator():
    rng = random.Random(0)

    def tree(depth: int) -> list[str]:
        if depth >= 6 or rng.random() > 0.25:
            return [str(rng.randrange(10))]
        arguments = [tree(depth + 1) for _ in range(rng.randint(2, 5))]
        return [rng.choice(list(FUNCTIONS)), *(word for argument in arguments for word in argument), "]"]

    plain: list[list[str]] = []
    while len(plain) < 3000:
        words = tree(1)
        if 20 < len(words) < 128:
            plain.append(words)
    found = trees.expressions(np.random.default_rng(0), 40_000, 6, 5, 20, 128)
    assert len(found.values) > 10_000
    assert found.lengths.mean() == pytest.approx(np.mean([len(words) for words in plain]), abs=1.5)
    assert found.lengths.std() == pytest.approx(np.std([len(words) for words in plain]), abs=1.5)
    ours = np.bincount(found.tokens, minlength=16) / len(found.tokens)
    counts = Counter(word for words in plain for word in words)
    theirs = [counts[symbol] / counts.total() for symbol in trees.SYMBOLS]
    np.testing.assert_allclose(ours, theirs, atol=0.004)
    values = np.bincount([value_of(words) for words in plain], minlength=10) / len(plain)
    np.testing.assert_allclose(np.bincount(found.values, minlength=10) / len(found.values), values, atol=0.025)


def test_no_tree_occurs_twice_within_or_across_splits(ready):
    # Bounds so tight that repetition is certain without a check: there are few trees of 4 and 5 tokens.
    module = ready("listops", train_size=2000, val_size=200, test_size=200, min_length=3, max_length=6)
    found = [tree for split in ("train", "val", "test") for tree in all_trees(module, split)]
    assert len(found) == 2400
    assert len(set(found)) == len(found)
    lengths = {split: module.splits[split].lengths.mean() for split in ("train", "val", "test")}
    # Rare trees are found last: without a shuffle the splits would differ in length.
    assert max(lengths.values()) - min(lengths.values()) < 0.15


def test_batches_are_padded_to_their_longest_and_labelled(ready):
    module = ready("listops", **SMALL_TREES)
    batches = [*module.train_dataloader(), *module.val_dataloader()]
    assert any(not batch.padding_mask.all() for batch in batches)
    for batch in batches:
        assert type(batch) is module.yields
        assert batch.padding_mask.any(dim=0).all()
        torch.testing.assert_close(batch.padding_mask, batch.tokens != 0)
        lengths = batch.padding_mask.sum(dim=1)
        for row, mask, length, label in zip(*batch[:2], lengths, batch.labels, strict=True):
            assert mask[:length].all()
            assert value_of(words_of(row[:length])) == label


def test_it_reports_on_itself(ready):
    module = ready("listops", **SMALL_TREES)
    assert (module.facts.vocabulary, module.facts.classes, module.facts.length) == (16, 10, 127)
    assert module.describe().startswith("ListOps: 300/40/60 trees, length 21 to 127, ")
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 300, "val": 40, "test": 60}
    tokens = torch.cat([batch.tokens.flatten() for batch in module.train_dataloader()])
    assert tokens.max() < module.facts.vocabulary


def test_the_trees_depend_on_the_generation_seed_alone(ready):
    first = ready("listops", seed=1, **SMALL_TREES)
    same = ready("listops", seed=2, **SMALL_TREES)
    other = ready("listops", seed=1, generation_seed=1, **SMALL_TREES)
    assert all_trees(first, "test") == all_trees(same, "test") != all_trees(other, "test")
    assert first.fingerprint == same.fingerprint != other.fingerprint
    order = [next(iter(module.train_dataloader())).labels.tolist() for module in (first, same)]
    assert order[0] != order[1]


def test_the_fingerprint_does_not_depend_on_the_place(ready, tmp_path):
    here = ready("listops", **SMALL_TREES)
    there = ListOps(
        0, tmp_path / "there", **SMALL_TREES, max_depth=6, max_args=5, min_length=20, max_length=128,
        generation_seed=0, batch_size=4, num_workers=0,
    )  # fmt: skip
    there.prepare_data()
    there.setup("test")
    assert there.fingerprint == here.fingerprint


def test_a_second_module_reads_the_cache(ready, monkeypatch):
    first = ready("listops", **SMALL_TREES)

    def never(*arguments: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(trees, "expressions", never)
    assert ready("listops", **SMALL_TREES).fingerprint == first.fingerprint


def test_a_truncated_cache_is_built_again(ready, tmp_path: Path, caplog):
    first = ready("listops", **SMALL_TREES)
    # Read before the file shrinks under the mapping.
    before = all_trees(first, "train")
    (tokens,) = (tmp_path / "cache").glob("listops-*/tokens.bin")
    tokens.write_bytes(tokens.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        second = ready("listops", **SMALL_TREES)
    assert "damaged" in caplog.text
    assert second.fingerprint == first.fingerprint
    assert all_trees(second, "train") == before


def test_floors_on_hand_written_labels():
    train, test = np.array([1, 1, 1, 0, 2, 2]), np.array([1, 0, 2, 2])
    feature, test_feature = np.array([5, 5, 5, 3, 4, 4]), np.array([5, 3, 4, 9])
    assert majority(train, test) == 0.25
    # An unseen feature falls to the first label.
    assert by_feature(feature, train, test_feature, test) == 0.75


def test_the_floors_are_those_of_the_small_setting(ready):
    module = ready("listops", train_size=8000, val_size=10, test_size=8000)
    assert module.floors["majority class"] == pytest.approx(0.118, abs=0.012)
    assert module.floors["root operator"] == pytest.approx(0.243, abs=0.015)
    assert module.mean_length == pytest.approx(40, abs=1)


def test_the_floors_are_fitted_on_the_training_trees(ready):
    module = ready("listops", **SMALL_TREES)
    pairs = {
        split: [(words[0], value_of(words)) for words in map(words_of, all_trees(module, split))]
        for split in ("train", "test")
    }
    guess, wrong = (Counter(value for _, value in pairs[split]).most_common(1)[0][0] for split in ("train", "test"))
    assert guess != wrong
    assert module.floors["majority class"] == np.mean([value == guess for _, value in pairs["test"]])
    by_root = {
        root: np.bincount([value for other, value in pairs["train"] if other == root]).argmax()
        for root, _ in pairs["train"]
    }
    assert module.floors["root operator"] == np.mean([value == by_root[root] for root, value in pairs["test"]])


@pytest.mark.slow
def test_the_floors_are_those_of_the_long_range_arena(ready):
    module = ready("listops_lra", train_size=6000, val_size=10, test_size=3000)
    assert module.floors["majority class"] == pytest.approx(0.166, abs=0.025)
    assert module.floors["root operator"] == pytest.approx(0.370, abs=0.03)


def test_bounds_without_a_tree_are_refused(build):
    with pytest.raises(ConfigError, match=r"data\.max_length=21 admits no tree .*data\.min_length=20: use at least 22"):
        build("listops", max_length=21)


def test_more_trees_than_there_are_is_refused(build):
    module = build("listops", max_depth=2, max_args=2, min_length=1, max_length=5)
    with pytest.raises(ConfigError, match=r"data\.max_length=5 .*only about 400 different trees.* ask for 24000"):
        module.prepare_data()

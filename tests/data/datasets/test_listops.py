import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.datasets.listops_reader import value_of, words_of
from xformer.data.configs import DataContext, GenerationConfig, LoaderConfig
from xformer.data.datasets import trees
from xformer.data.datasets.listops import ListOps
from xformer.errors import ConfigError

SMALL_TREES = {"train_size": 300, "val_size": 40, "test_size": 60}


def all_trees(module: ListOps, split: str) -> list[bytes]:
    batch = module.splits[split].__getitems__(range(len(module.splits[split])))
    return [bytes(row[real].tolist()) for row, real in zip(batch.tokens, batch.padding_mask, strict=True)]


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
    assert (module.spec.vocabulary, module.spec.classes, module.spec.length) == (16, 10, 127)
    assert module.describe().startswith("ListOps: 300/40/60 trees, length 21 to 127, ")
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 300, "val": 40, "test": 60}
    tokens = torch.cat([batch.tokens.flatten() for batch in module.train_dataloader()])
    assert tokens.max() < module.spec.vocabulary


def test_the_trees_depend_on_the_generation_seed_alone(ready):
    first = ready("listops", seed=1, **SMALL_TREES)
    same = ready("listops", seed=2, **SMALL_TREES)
    other = ready("listops", seed=1, generation={"seed": 1}, **SMALL_TREES)
    assert all_trees(first, "test") == all_trees(same, "test") != all_trees(other, "test")
    assert first.fingerprint == same.fingerprint != other.fingerprint
    order = [next(iter(module.train_dataloader())).labels.tolist() for module in (first, same)]
    assert order[0] != order[1]


def test_the_fingerprint_does_not_depend_on_the_place(ready, tmp_path):
    here = ready("listops", **SMALL_TREES)
    there = ListOps(
        DataContext(0, tmp_path / "there"), max_depth=6, max_args=5, min_length=20, max_length=128,
        generation=GenerationConfig(**SMALL_TREES, seed=0), loader=LoaderConfig(batch_size=4, num_workers=0),
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


def test_the_trivial_baselines_are_those_of_the_small_setting(ready):
    module = ready("listops", train_size=8000, val_size=10, test_size=8000)
    assert module.trivial_baselines["majority class"] == pytest.approx(0.118, abs=0.012)
    assert module.trivial_baselines["root operator"] == pytest.approx(0.243, abs=0.015)
    assert module.mean_length == pytest.approx(40, abs=1)


def test_the_trivial_baselines_are_fitted_on_the_training_trees(ready):
    module = ready("listops", **SMALL_TREES)
    pairs = {
        split: [(words[0], value_of(words)) for words in map(words_of, all_trees(module, split))]
        for split in ("train", "test")
    }
    guess, wrong = (Counter(value for _, value in pairs[split]).most_common(1)[0][0] for split in ("train", "test"))
    assert guess != wrong
    assert module.trivial_baselines["majority class"] == np.mean([value == guess for _, value in pairs["test"]])
    by_root = {
        root: np.bincount([value for other, value in pairs["train"] if other == root]).argmax()
        for root, _ in pairs["train"]
    }
    assert module.trivial_baselines["root operator"] == np.mean(
        [value == by_root[root] for root, value in pairs["test"]]
    )


@pytest.mark.slow
def test_the_trivial_baselines_are_those_of_the_long_range_arena(ready):
    module = ready("listops_lra", train_size=6000, val_size=10, test_size=3000)
    assert module.trivial_baselines["majority class"] == pytest.approx(0.166, abs=0.025)
    assert module.trivial_baselines["root operator"] == pytest.approx(0.370, abs=0.03)


def test_bounds_without_a_tree_are_refused(build):
    with pytest.raises(ConfigError, match=r"data\.max_length=21 admits no tree .*data\.min_length=20: use at least 22"):
        build("listops", max_length=21)


def test_more_trees_than_there_are_is_refused(build):
    module = build("listops", max_depth=2, max_args=2, min_length=1, max_length=5)
    with pytest.raises(ConfigError, match=r"data\.max_length=5 .*only about 400 different trees.*asks for 24000"):
        module.prepare_data()

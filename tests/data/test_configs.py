"""The blocks of options that datasets share."""

from dataclasses import FrozenInstanceError, replace

import pytest

from xformer.data.configs import FreshGenerationConfig, LoaderConfig, RandomSplitConfig, SplitConfig
from xformer.errors import ConfigError


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.2, 0.9)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.split\.val_fraction=.* and data\.split\.test_fraction=.* below 1\."
    ) as caught:
        SplitConfig(val_fraction=fractions[0], test_fraction=fractions[1])
    assert "\n" not in str(caught.value)


def test_a_block_lists_its_shares_and_sizes_by_split() -> None:
    assert RandomSplitConfig(val_fraction=0.25, test_fraction=0.0, seed=3).fractions == {"val": 0.25, "test": 0.0}
    generation = FreshGenerationConfig(train_size=5, val_size=3, test_size=2, seed=0, fresh=True)
    assert generation.sizes == {"train": 5, "val": 3, "test": 2}


def test_what_the_source_lacks_is_held_out_of_its_training_rows() -> None:
    split = RandomSplitConfig(val_fraction=0.1, test_fraction=0.2, seed=0)
    dealt = split.deal(100, {"train"}, "rows")
    assert {name: len(rows) for name, rows in dealt.items()} == {"val": 10, "test": 20, "train": 70}
    assert sorted(row for rows in dealt.values() for row in rows.tolist()) == list(range(100))
    assert all(rows.tolist() != sorted(rows.tolist()) for rows in dealt.values())
    again, other = split.deal(100, {"train"}, "rows"), replace(split, seed=1).deal(100, {"train"}, "rows")
    assert dealt["test"].tolist() == again["test"].tolist() != other["test"].tolist()
    assert {*split.deal(100, {"train", "val"}, "rows")} == {"test", "train"}
    assert replace(split, test_fraction=0.0).deal(100, {"train", "val"}, "rows") == {}


@pytest.mark.parametrize(("total", "val"), [(100, 0.0), (9, 0.05), (1, 0.9)])
def test_a_split_without_an_item_is_refused(total: int, val: float) -> None:
    split = RandomSplitConfig(val_fraction=val, test_fraction=0.0, seed=0)
    with pytest.raises(
        ConfigError, match=rf"data\.split\.val_fraction={val} of {total} rows leave none for (val|train)"
    ):
        split.deal(total, {"train"}, "rows")


def test_a_block_does_not_change() -> None:
    loader = LoaderConfig(batch_size=4, num_workers=0)
    assert loader.tokens_per_batch is None
    with pytest.raises(FrozenInstanceError):
        loader.batch_size = 8  # type: ignore[misc]

"""Held-out splits: random splits for sources without their own."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from xformer.data.sources.hub import NAMES
from xformer.errors import ConfigError

Row = TypeVar("Row")


def deal(total: int, fractions: Mapping[str, float], seed: int) -> dict[str, Int64[np.ndarray, " rows"]]:
    """Shuffle the rows from 0 to `total`, and distribute them over the splits.

    Args:
        total: number of items.
        fractions: the share of each split that is held out.
        seed: decides which item goes where.

    Returns:
        The rows of each of those splits, which may be none, and under "train" the rest.
    """
    counts = [round(total * fraction) for fraction in fractions.values()]
    order = np.random.default_rng(seed).permutation(total)
    return dict(zip((*fractions, "train"), np.split(order, np.cumsum(counts)), strict=True))


def hold_out(splits: Mapping[str, list[Row]], fractions: Mapping[str, float], seed: int) -> dict[str, list[Row]]:
    """Hold out random rows of "train" for the splits that the source lacks.

    Args:
        splits: rows by split.
        fractions: share of the rows of "train" by split; nothing is held out for 0.
        seed: decides which rows; the rows of a split keep their order.

    Returns:
        Rows under "train", "val" and "test", as far as they exist, in this order.
    """
    train = splits["train"]
    wanted = {split: share for split, share in fractions.items() if split not in splits and share > 0}
    dealt = deal(len(train), wanted, seed)
    found = {**splits, **{split: [train[row] for row in sorted(rows.tolist())] for split, rows in dealt.items()}}
    return {split: found[split] for split in NAMES if split in found}


def deal_images(total: int, fractions: Mapping[str, float], seed: int) -> dict[str, Int64[np.ndarray, " rows"]]:
    """Distribute images over the splits, each of which must get at least one.

    Raises:
        ConfigError: a split gets nothing.
    """
    # Test first: so were the first caches dealt.
    fractions = {split: fractions[split] for split in ("test", "val") if split in fractions}
    rows = deal(total, fractions, seed)
    for name, part in rows.items():
        if not len(part):
            asked = " and ".join(f"data.split.{split}_fraction={fraction}" for split, fraction in fractions.items())
            raise ConfigError(f"{asked} of {total} leave no image for {name}: choose other fractions.")
    return rows

"""Batches of source and target sequences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from xformer.data.batch import IGNORED, Seq2SeqBatch


def pad_pairs(
    sources: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]], *, padding: int, begin: int, end: int
) -> Seq2SeqBatch:
    """Make a batch of pairs, each side padded to its longest with the end or begin token.

    Args:
        sources: token ids without an end.
        targets: token ids without a begin or an end.
        padding: the id of padding, which no row holds.
        begin: the id put before the targets.
        end: the id put after the sources and the labels.
    """
    source, target, labels = _padded(sources, 0, padding), _padded(targets, 1, padding), _padded(targets, 0, IGNORED)
    target[:, 0] = begin
    for tokens, rows in ((source, sources), (labels, targets)):
        tokens[torch.arange(len(rows)), torch.tensor([len(row) for row in rows])] = end
    return Seq2SeqBatch(source, source != padding, target, target != padding, labels)


def _padded(rows: Sequence[NDArray[Any]], start: int, filler: int) -> Int[Tensor, "rows longest_and_one"]:
    """The rows from column `start` on, with room for a token before or after the longest."""
    padded = np.full((len(rows), max(map(len, rows)) + 1), filler, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[start : start + len(row)] = row
    return torch.from_numpy(padded)

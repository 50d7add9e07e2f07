"""Splits: datasets that return a whole typed batch for a list of indices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from xformer.data.arrays import Flat, Ragged
from xformer.data.batch import IGNORED, Batch, ClassificationBatch, ImageBatch, Seq2SeqBatch


class Split(ABC):
    """A split: a dataset that returns a whole batch for a list of indices."""

    # tokens of each item, by which batches of similar length are made; None where all are equally long or are not cut
    # into items
    lengths: Int64[np.ndarray, " items"] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of items."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return one typed batch."""


class LabelledSplit(Split):
    """A split with a label for each item: the number of its class."""

    labels: Int64[np.ndarray, " items"]

    def __len__(self) -> int:
        return len(self.labels)


class LabelledSequences(LabelledSplit):
    """Tokenised sequences with a label each, truncated at the end and padded batch by batch.

    Args:
        rows: the tokens.
        labels: numbers of the classes.
        padding: the id that fills a batch's shorter sequences up.
        max_length: most tokens of a sequence that are read; None for all.
    """

    def __init__(
        self, rows: Ragged, labels: Int64[np.ndarray, " rows"], padding: int, max_length: int | None = None
    ) -> None:
        self.rows, self.labels, self.padding = rows, labels, padding
        self.lengths: Int64[np.ndarray, " rows"] = np.minimum(rows.lengths, max_length or rows.offsets[-1])

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        lengths = self.lengths[np.asarray(indices)]
        tokens = pad([self.rows[index][:length] for index, length in zip(indices, lengths, strict=True)], self.padding)
        valid = torch.from_numpy(np.arange(tokens.shape[1]) < lengths[:, None])
        return ClassificationBatch(tokens, valid, torch.from_numpy(self.labels[np.asarray(indices)]))


class StoredImages(LabelledSplit):
    """Labelled images of one size, read on access.

    Args:
        pixels: bytes, image by image, channel by channel, row by row; from a file or in memory.
        shape: channels, height and width.
        labels: the classes.
    """

    def __init__(
        self, pixels: Flat | UInt8[np.ndarray, "..."], shape: tuple[int, int, int], labels: Int64[np.ndarray, " images"]
    ) -> None:
        self.pixels, self.shape, self.labels = pixels, shape, labels

    def rows(self, indices: Sequence[int]) -> UInt8[np.ndarray, "batch channels height width"]:
        """Read the bytes of some images."""
        pixels = self.pixels.array if isinstance(self.pixels, Flat) else self.pixels
        return np.asarray(pixels.reshape(-1, *self.shape)[np.asarray(indices)])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        values = torch.from_numpy(self.rows(indices)).to(torch.float32) / 255
        return ImageBatch(values, torch.from_numpy(self.labels[np.asarray(indices)]))


class PixelRows(StoredImages):
    """Grey images as token sequences, row by row: each byte is a token."""

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        tokens = self.rows(indices).reshape(len(indices), -1).astype(np.int64)
        labels = self.labels[np.asarray(indices)]
        return ClassificationBatch(torch.from_numpy(tokens), None, torch.from_numpy(labels))


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
    source, target = pad(sources, padding, after=1), pad(targets, padding, before=1)
    labels = pad(targets, IGNORED, after=1)
    target[:, 0] = begin
    for tokens, rows in ((source, sources), (labels, targets)):
        tokens[torch.arange(len(rows)), torch.tensor([len(row) for row in rows])] = end
    return Seq2SeqBatch(source, source != padding, target, target != padding, labels)


def pad(rows: Sequence[NDArray[Any]], filler: int, *, before: int = 0, after: int = 0) -> Int[Tensor, "rows width"]:
    """Rows of token ids, filled up to the longest, with room for as many tokens before and after it."""
    padded = np.full((len(rows), before + max(map(len, rows)) + after), filler, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[before : before + len(row)] = row
    return torch.from_numpy(padded)

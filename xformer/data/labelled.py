"""Memory-mapped sequences of different lengths with a label each, padded batch by batch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64

from xformer.data.arrays import Flat
from xformer.data.batch import ClassificationBatch
from xformer.data.split import Split


class LabelledSequences(Split):
    """Tokenised sequences with labels, truncated at the end.

    Args:
        tokens: of all sequences, one after the other.
        offsets: where each sequence begins, and where the last one ends.
        labels: numbers of the classes.
        padding: the id that fills a batch's shorter sequences up.
        max_length: most tokens of a sequence that are read; None for all.
    """

    def __init__(
        self,
        tokens: Flat,
        offsets: Int64[np.ndarray, " sequences_and_one"],
        labels: Int64[np.ndarray, " sequences"],
        padding: int,
        max_length: int | None = None,
    ) -> None:
        self.tokens, self.offsets, self.labels, self.padding = tokens, offsets, labels, padding
        self.lengths: Int64[np.ndarray, " sequences"] = np.minimum(np.diff(offsets), max_length or offsets[-1])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        rows = np.asarray(indices)
        lengths = self.lengths[rows]
        tokens = np.full((len(rows), lengths.max()), self.padding)
        for row, first, length in zip(tokens, self.offsets[rows], lengths, strict=True):
            row[:length] = self.tokens.array[first : first + length]
        valid = np.arange(tokens.shape[1]) < lengths[:, None]
        labels = self.labels[rows]
        return ClassificationBatch(torch.from_numpy(tokens), torch.from_numpy(valid), torch.from_numpy(labels))

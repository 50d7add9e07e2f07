"""From labelled texts to tokens on disk, and from there to padded batches."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from xformer.data.batch import ClassificationBatch
from xformer.data.flat import Flat
from xformer.data.unread import Unread
from xformer.errors import DataError
from xformer.tokenizers.base import Tokenizer

SIDECAR = "tokens.json"
_SHOWN = 40


@dataclass(frozen=True)
class Labelled:
    """Texts with the number of each one's class, and what to call each in a message."""

    texts: list[str]
    labels: list[int]
    names: list[str]


class LabelledTexts:
    """Tokenised texts, cut at their ends, with their labels.

    Args:
        tokens: of all texts, one after the other.
        offsets: where each text begins, and where the last one ends.
        labels: numbers of the classes.
        max_length: most tokens of a text that are read.
        padding: the id that fills a batch's shorter texts up.
    """

    def __init__(
        self,
        tokens: Flat,
        offsets: Int64[np.ndarray, " texts_and_one"],
        labels: Int64[np.ndarray, " texts"],
        max_length: int,
        padding: int,
    ) -> None:
        self.tokens, self.offsets, self.labels, self.padding = tokens, offsets, labels, padding
        self.lengths: Int64[np.ndarray, " texts"] = np.minimum(np.diff(offsets), max_length)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        lengths = self.lengths[np.asarray(indices)]
        tokens = np.full((len(indices), lengths.max()), self.padding)
        for row, index, length in zip(tokens, indices, lengths, strict=True):
            row[:length] = self.tokens.array[self.offsets[index] :][:length]
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        labels = self.labels[np.asarray(indices)]
        return ClassificationBatch(torch.from_numpy(tokens), torch.from_numpy(real), torch.from_numpy(labels))


def pack_labelled(directory: Path, splits: dict[str, Labelled], tokenizer: Tokenizer) -> None:
    """Train the tokenizer on the texts of "train" alone and write every split's tokens, offsets and labels.

    Raises:
        DataError: a text has no token: nothing could be attended to.
    """
    tokenizer.train(splits["train"].texts)
    unread = Unread(tokenizer)
    tokenizer.save(directory)
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.uint32)
    for name, split in splits.items():
        lengths = []
        with (directory / f"{name}.tokens").open("wb") as file:
            for text, where in zip(split.texts, split.names, strict=True):
                unread.read(name, text)
                tokens = tokenizer.encode(text)
                if not len(tokens):
                    raise DataError(
                        f"{where} has only text that the tokenizer has no token for, {text[:_SHOWN]!r}: correct the "
                        "row, or choose another tokenizer."
                    )
                lengths.append(len(tokens))
                tokens.astype(dtype).tofile(file)
        np.cumsum([0, *lengths], dtype=np.int64).tofile(directory / f"{name}.offsets")
        np.array(split.labels, dtype=np.int64).tofile(directory / f"{name}.labels")
    unread.save(directory)
    (directory / SIDECAR).write_text(json.dumps({"dtype": dtype.name, "splits": list(splits)}), encoding="utf-8")


def unpack_labelled(directory: Path, max_length: int, padding: int) -> dict[str, LabelledTexts]:
    """The splits that `pack_labelled` wrote."""
    sidecar = json.loads((directory / SIDECAR).read_text(encoding="utf-8"))
    return {
        name: LabelledTexts(
            Flat(directory / f"{name}.tokens", sidecar["dtype"]),
            np.fromfile(directory / f"{name}.offsets", dtype=np.int64),
            np.fromfile(directory / f"{name}.labels", dtype=np.int64),
            max_length,
            padding,
        )
        for name in sidecar["splits"]
    }

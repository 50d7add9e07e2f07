"""From documents to flat files of tokens: cut into splits, tokenise, concatenate, map into memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xformer.data.batch import LanguageModelingBatch
from xformer.data.flat import Flat
from xformer.data.sources import Documents
from xformer.data.tokenizer import Tokenizer

SIDECAR = "tokens.json"


class Blocks:
    """Windows of a flat file; item i starts at token `i * stride`.

    Args:
        tokens: The file.
        block: Tokens of a window; the labels are one further.
        stride: 1 for windows at any offset, `block` for consecutive ones.
    """

    def __init__(self, tokens: Flat, block: int, stride: int) -> None:
        self.tokens, self.block, self.stride = tokens, block, stride

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.block - 1) // self.stride + 1)

    def __getitems__(self, indices: Sequence[int]) -> LanguageModelingBatch:
        array, span = self.tokens.array, self.block + 1
        rows = np.stack([array[index * self.stride : index * self.stride + span] for index in indices])
        both = torch.from_numpy(rows.astype(np.int64))
        return LanguageModelingBatch(both[:, :-1].contiguous(), both[:, 1:].contiguous())


def cut(documents: Documents, fractions: Sequence[float]) -> list[Documents]:
    """Cut documents, in order, into a first part and one part per fraction, measured in characters.

    A document across a border is cut in two.
    """
    total = sum(map(len, documents))
    # Rounded before it is truncated: 1 - 0.9 is a little less than 0.1.
    borders = [int(round(total * (1 - sum(fractions[i:])), 6)) for i in range(len(fractions))]
    parts: list[Documents] = []
    for first, last in zip([0, *borders], [*borders, total], strict=True):
        part, begin = [], 0
        for document in documents:
            piece = document[max(first - begin, 0) : max(last - begin, 0)]
            begin += len(document)
            if piece:
                part.append(piece)
        parts.append(part)
    return parts


def pack(directory: Path, splits: dict[str, Documents], tokenizer: Tokenizer) -> None:
    """Train the tokenizer on "train" alone and write each split as one flat file, with a sidecar that says of what."""
    tokenizer.train(splits["train"])
    tokenizer.save(directory)
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.uint32)
    end = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    for name, documents in splits.items():
        with (directory / f"{name}.bin").open("wb") as file:
            for document in documents:
                np.append(tokenizer.encode(document), end).astype(dtype).tofile(file)
    sidecar = {"dtype": dtype.name, "vocabulary": tokenizer.vocabulary, "splits": list(splits)}
    (directory / SIDECAR).write_text(json.dumps(sidecar), encoding="utf-8")


def unpack(directory: Path) -> dict[str, Flat]:
    """The flat files that `pack` wrote, by split."""
    sidecar = json.loads((directory / SIDECAR).read_text(encoding="utf-8"))
    return {name: Flat(directory / f"{name}.bin", sidecar["dtype"]) for name in sidecar["splits"]}

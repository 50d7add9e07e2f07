"""Packing: documents are tokenised, concatenated into flat files, mapped into memory and cut into windows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from xformer.data.arrays import Flat
from xformer.data.batch import IGNORED, LanguageModelingBatch
from xformer.data.sources.documents import Documents
from xformer.data.splits import Split
from xformer.data.tokenised import Unread, token_type
from xformer.tokenizers.base import Tokenizer
from xformer.tokenizers.pieces import rereadable

SIDECAR = "tokens.json"


class PackedBlocks(Split):
    """Training windows: one at every offset of a flat file.

    Args:
        tokens: The file.
        block: Tokens of a window; the labels are one further.
    """

    def __init__(self, tokens: Flat, block: int) -> None:
        self.tokens, self.block = tokens, block

    def __len__(self) -> int:
        return max(0, len(self.tokens) - self.block)

    def __getitems__(self, indices: Sequence[int]) -> LanguageModelingBatch:
        array, span = self.tokens.array, self.block + 1
        rows = np.stack([array[index : index + span] for index in indices])
        both = torch.from_numpy(rows.astype(np.int64))
        return LanguageModelingBatch(both[:, :-1].contiguous(), both[:, 1:].contiguous())


class PackedWindows(PackedBlocks):
    """Evaluation windows, in which every token of a flat file but the first is a label exactly once.

    Each begins `stride` tokens after the one before, and the last ends with the file. A window's labels that one before
    has counted are `IGNORED`: what counts has at least `block - stride` tokens before it, the first window aside.

    Args:
        tokens: The file, longer than a block.
        block: Tokens of a window.
        stride: Labels that a window adds; the block, for windows that do not overlap.
    """

    def __init__(self, tokens: Flat, block: int, stride: int) -> None:
        super().__init__(tokens, block)
        self.stride = stride

    def __len__(self) -> int:
        return 1 + max(0, -(-(len(self.tokens) - 1 - self.block) // self.stride))

    def __getitems__(self, indices: Sequence[int]) -> LanguageModelingBatch:
        last = len(self.tokens) - 1 - self.block
        batch = super().__getitems__([min(index * self.stride, last) for index in indices])
        labels = batch.labels.clone()  # which in a batch of one are a view of what the tokens are a view of
        for row, index in zip(labels, indices, strict=True):
            if index:
                scored = (index - 1) * self.stride + self.block
                row[: scored - min(index * self.stride, last)] = IGNORED
        return LanguageModelingBatch(batch.tokens, labels)


@rereadable
def words(documents: Documents) -> Iterator[str]:
    """The texts of documents, without document boundaries."""
    for text, _ in documents:
        yield text


def pack(directory: Path, splits: Mapping[str, Documents], tokenizer: Tokenizer) -> None:
    """Train the tokenizer on "train" only, and write each split as one flat file.

    A sidecar says what the numbers are, and how many bytes of text the tokens of each split stand for, the first token
    aside: the first of a split is never predicted. What the tokenizer leaves unread is not among them.
    """
    tokenizer.train(words(splits["train"]))
    tokenizer.save(directory)
    dtype = token_type(tokenizer)
    end = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    sizes, unread = {}, Unread(tokenizer)
    for name, documents in splits.items():
        size = 0
        with (directory / f"{name}.bin").open("wb") as file:
            for text, last in documents:
                size += unread.read(name, text) - (tokenizer.head(text) if file.tell() == 0 else 0)
                np.append(tokenizer.encode(text), end if last else []).astype(dtype).tofile(file)
        sizes[name] = size
    unread.save(directory)
    sidecar = {"dtype": dtype.name, "vocabulary": tokenizer.vocabulary, "splits": sizes}
    (directory / SIDECAR).write_text(json.dumps(sidecar), encoding="utf-8")


def unpack(directory: Path) -> dict[str, Flat]:
    """The flat files that `pack` wrote, by split."""
    sidecar = json.loads((directory / SIDECAR).read_text(encoding="utf-8"))
    return {name: Flat(directory / f"{name}.bin", sidecar["dtype"]) for name in sidecar["splits"]}


def tokens_per_byte(directory: Path) -> dict[str, float]:
    """The number of labels per byte of their text (Gao et al. 2020, section 3.1)."""
    sidecar = json.loads((directory / SIDECAR).read_text(encoding="utf-8"))
    flat = unpack(directory)
    return {name: (len(flat[name]) - 1) / max(1, size) for name, size in sidecar["splits"].items()}

"""Tokenised pairs on disk: packed once, mapped into memory, so that what is read is what a batch needs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.data.batch import Seq2SeqBatch
from xformer.data.facts import Facts
from xformer.data.pairs import pad_pairs
from xformer.data.ragged import Ragged, write
from xformer.data.sources.corpus import Corpus
from xformer.data.unread import Unread
from xformer.tokenizers.base import Tokenizer

SIDES = ("source", "target")


def pack_pairs(directory: Path, splits: Mapping[str, Corpus], tokenizer: Tokenizer) -> None:
    """Train one tokenizer on both sides of "train" and write every split's tokens; of the others the targets' text too.

    A score of what a model writes is taken against that text, which a tokenizer need not give back.
    """
    tokenizer.train(text for pair in splits["train"] for text in pair)
    tokenizer.save(directory)
    unread = Unread(tokenizer)
    for split, corpus in splits.items():
        for side in SIDES:
            rows = (_encoded(tokenizer, unread, split, getattr(pair, side)) for pair in corpus)
            write(directory / f"{split}.{side}", rows, _width(tokenizer))
        if split != "train":
            write(directory / f"{split}.reference", _bytes(corpus), np.uint8)
    unread.save(directory)


def _encoded(tokenizer: Tokenizer, unread: Unread, split: str, text: str) -> NDArray[Any]:
    unread.read(split, text)
    return tokenizer.encode(text)


def _bytes(corpus: Corpus) -> Iterator[NDArray[Any]]:
    for pair in corpus:
        yield np.frombuffer(pair.target.encode("utf-8", errors="replace"), np.uint8)


def _width(tokenizer: Tokenizer) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.uint32


class Translations:
    """The pairs of a split.

    Of the training pairs, those with an empty side or one beyond `facts.length` are left out; of the others every pair
    stays, and what is beyond is cut off, for the references not.

    Args:
        entry: the directory that `pack_pairs` wrote.
        split: "train", "val" or "test".
        tokenizer: trained.
        facts: the length, which counts the token at the end or the beginning, and the ids of the special tokens.
    """

    def __init__(self, entry: Path, split: str, tokenizer: Tokenizer, facts: Facts) -> None:
        self._sides = tuple(Ragged(entry / f"{split}.{side}", _width(tokenizer)) for side in SIDES)
        self._references = None if split == "train" else Ragged(entry / f"{split}.reference", np.uint8)
        self._most, self._facts = facts.length - 1, facts
        lengths = np.stack([side.lengths for side in self._sides])
        self.beyond = (lengths.max(0) > self._most) | ((lengths.min(0) == 0) & (split == "train"))
        self._rows = np.flatnonzero(~self.beyond) if split == "train" else np.arange(len(self.beyond))
        self._lengths: Int64[np.ndarray, " pairs"] = np.minimum(lengths.max(0)[self._rows], self._most) + 1

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> Int64[np.ndarray, " pairs"]:
        """Tokens of the longer side of each pair: a budget of tokens then holds for each side."""
        return self._lengths

    def __getitems__(self, indices: Sequence[int]) -> Seq2SeqBatch:
        rows = self._rows[np.asarray(indices)].tolist()
        sources, targets = ([side[row][: self._most] for row in rows] for side in self._sides)
        facts = self._facts
        assert facts.padding is not None
        assert facts.begin is not None
        assert facts.end is not None
        batch = pad_pairs(sources, targets, padding=facts.padding, begin=facts.begin, end=facts.end)
        if self._references is None:
            return batch
        return batch._replace(references=[self._references[row].tobytes().decode("utf-8") for row in rows])

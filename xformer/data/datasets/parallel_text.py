"""Parallel text for translation: sentences and their translations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.core.digest import digest
from xformer.data.arrays import read_rows, write_rows
from xformer.data.batch import Seq2SeqBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import RandomSplitConfig
from xformer.data.sources.corpus import Corpus, ParallelSource, aligned_lines, corpus_texts, of_rows, part, survey
from xformer.data.sources.hub import NAMES
from xformer.data.sources.tables import read_tables
from xformer.data.spec import DataSpec
from xformer.data.splits import Split, pad_pairs
from xformer.data.tokenised import TokenisedData, Unread, remark, token_type
from xformer.errors import DataError
from xformer.tokenizers.base import Tokenizer

VERSION = 4
"""Raised whenever the packing changes: a cache written by another version is then not found."""
SIDES = ("source", "target")
OFFLINE = "data=transduction, which is generated here, or files of your own"


@dataclass(kw_only=True, eq=False, repr=False)
class ParallelText(TokenisedData):
    """Pairs of texts with one vocabulary, learned from both sides of the training pairs only.

    Read are two aligned files, or tables with a column for each side, or a dataset; but for tables of files, a line at
    a time. Where the source has no validation or test split, random pairs are held out of the training ones. A training
    pair with more than `max_length` tokens on a side, or none, is left out, and `describe` counts them; of a longer
    validation or test pair the rest is cut off, but scores of the written text are taken against the whole target. A
    budget of tokens holds for either side.
    """

    yields: ClassVar[type] = Seq2SeqBatch
    pads: ClassVar[bool] = True

    source: ParallelSource  # where the pairs come from
    max_length: Annotated[int, Ge(2)]  # most tokens of a side, its end included
    split: RandomSplitConfig  # which pairs are held out where the source has no such split

    def prepare(self) -> Path:
        """Read, hold out and tokenise, unless it is cached.

        Raises:
            DataError: the source cannot be read.
        """
        found = self._read()
        surveys = {split: survey(corpus) for split, corpus in found.items()}
        for split, (count, _) in surveys.items():
            if not count:
                raise DataError(f"The {split} split of {self._source()} is empty: use a source with pairs.")
        count = surveys["train"][0]
        dealt = self.split.deal(count, found, "pairs")
        kept = {split: np.isin(np.arange(count), rows).tolist() for split, rows in dealt.items()}
        splits = {**found, **{split: part(found["train"], pairs) for split, pairs in kept.items()}}
        splits = {split: splits[split] for split in NAMES if split in splits}
        held_out = self.split.fractions, self.split.seed
        name = f"parallel_text-{digest(VERSION, surveys, *held_out, self.tokenizer.identity)}"
        return cached(self.context.cache, name, lambda directory: pack_pairs(directory, splits, self.tokenizer))

    def _read(self) -> dict[str, Corpus]:
        source = self.source
        if source.source_files is not None and source.target_files is not None:
            return aligned_lines(source.source_files, source.target_files)
        tables = read_tables(source, offline=OFFLINE)
        return {split: of_rows(self._source(), rows) for split, rows in tables.items()}

    def _source(self) -> str:
        key = next(key for key in self.source.source_keys if getattr(self.source, key) is not None)
        files = getattr(self.source, key)
        return f"data.source.{key}={files['train'] if isinstance(files, dict) and 'train' in files else files}"

    def load(self) -> None:
        """Map the tokens into memory.

        Raises:
            DataError: no training pair is short enough.
        """
        entry = self.entry
        self.tokenizer.load(entry)
        size = self.tokenizer.vocabulary
        self.spec = DataSpec(vocabulary=size + 3, length=self.max_length, padding=size, begin=size + 1, end=size + 2)
        names = [split for split in NAMES if (entry / f"{split}.source.bin").exists()]
        self.pairs = {split: Translations(entry, split, self.tokenizer, self.max_length) for split in names}
        if not len(self.pairs["train"]):
            raise DataError(
                f"data.max_length={self.max_length} leaves no training pair: the shortest is longer, so raise it."
            )
        self.splits, self.trivial_baselines, self.unread = self.pairs, {}, remark(entry)
        self.fingerprint = digest(fingerprint(entry), self.max_length)

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode a source, with the end token."""
        assert self.spec.end is not None
        return np.append(super().encode(text), self.spec.end)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode ids as text up to the end token, without special tokens."""
        ids, end = list(tokens), self.spec.end
        return super().decode(ids[: ids.index(end)] if end in ids else ids)

    def describe(self) -> str:
        """Describe the source, split sizes, tokenizer, and how many pairs `max_length` removes."""
        kind = f"{self.tokenizer.kind} tokens of {self.spec.vocabulary:,}"
        left_out, *cut = (int(split.beyond.sum()) for split in self.pairs.values())
        return (
            f"ParallelText ({self._source().partition('=')[2]}): {self.split_sizes()} pairs of at most "
            f"{self.max_length} {kind}; {left_out:,} training pairs left out as longer or empty, {sum(cut):,} others "
            f"cut{self.unread}"
        )


def pack_pairs(directory: Path, splits: Mapping[str, Corpus], tokenizer: Tokenizer) -> None:
    """Train one tokenizer on both sides of "train" and write every split's tokens; of the others the targets' text too.

    A score of what a model writes is taken against that text, which a tokenizer need not give back.
    """
    tokenizer.train(corpus_texts(splits["train"]))
    tokenizer.save(directory)
    unread = Unread(tokenizer)
    for split, corpus in splits.items():
        for side in SIDES:
            rows = _encoded(tokenizer, unread, split, (getattr(pair, side) for pair in corpus))
            write_rows(*_files(directory, split, side), rows, token_type(tokenizer))
        if split != "train":
            references = (np.frombuffer(pair.target.encode("utf-8", errors="replace"), np.uint8) for pair in corpus)
            write_rows(*_files(directory, split, "reference"), references, np.uint8)
    unread.save(directory)


def _encoded(tokenizer: Tokenizer, unread: Unread, split: str, texts: Iterable[str]) -> Iterator[NDArray[Any]]:
    for text in texts:
        unread.read(split, text)
        yield tokenizer.encode(text)


def _files(directory: Path, split: str, column: str) -> tuple[Path, Path]:
    return directory / f"{split}.{column}.bin", directory / f"{split}.{column}.offsets"


class Translations(Split):
    """The pairs of a split.

    Of the training pairs, those with an empty side or one beyond the length are left out; of the others every pair
    stays, and what is beyond is cut off, for the references not.

    Args:
        entry: the directory that `pack_pairs` wrote.
        split: "train", "val" or "test".
        tokenizer: trained; padding, begin and end are the ids after its own.
        length: most tokens of a side, the one at its end or beginning included.
    """

    def __init__(self, entry: Path, split: str, tokenizer: Tokenizer, length: int) -> None:
        self._sides = tuple(read_rows(*_files(entry, split, side), token_type(tokenizer)) for side in SIDES)
        self._references = None if split == "train" else read_rows(*_files(entry, split, "reference"), np.uint8)
        self._most, self._padding = length - 1, tokenizer.vocabulary
        lengths = np.stack([side.lengths for side in self._sides])
        self.beyond = (lengths.max(0) > self._most) | ((lengths.min(0) == 0) & (split == "train"))
        self._rows = np.flatnonzero(~self.beyond) if split == "train" else np.arange(len(self.beyond))
        self.lengths: Int64[np.ndarray, " pairs"] = np.minimum(lengths.max(0)[self._rows], self._most) + 1
        """Tokens of the longer side of each pair: a budget of tokens then holds for each side."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: Sequence[int]) -> Seq2SeqBatch:
        rows = self._rows[np.asarray(indices)].tolist()
        sources, targets = ([side[row][: self._most] for row in rows] for side in self._sides)
        padding = self._padding
        batch = pad_pairs(sources, targets, padding=padding, begin=padding + 1, end=padding + 2)
        if self._references is None:
            return batch
        return batch._replace(references=[self._references[row].tobytes().decode("utf-8") for row in rows])

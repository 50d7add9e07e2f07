"""Parallel text: sentences and their translations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Interval
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.core.digest import digest, stable_name_of
from xformer.data.arrays import Ragged, write_rows
from xformer.data.batch import Seq2SeqBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.facts import Facts
from xformer.data.pairs import pad_pairs
from xformer.data.sources.corpus import Aligned, Corpus, aligned_lines, corpus_texts, of_dataset, of_table, part, survey
from xformer.data.sources.hold_out import check_fractions, deal
from xformer.data.sources.hub import NAMES
from xformer.data.sources.tables import Files, read_tables
from xformer.data.tokenised import TokenisedData, Unread, remark, token_type
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.base import Tokenizer

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 4
SIDES = ("source", "target")


class ParallelText(TokenisedData):
    """Pairs of texts with one vocabulary, learned from both sides of the training pairs alone.

    Read are two aligned files, or tables with a column for each side, or a dataset; but for tables of files, a line at
    a time. Where the source has no validation or test split, random pairs are held out of the training ones. A training
    pair with more than `max_length` tokens on a side, or none, is left out, and `describe` counts them; of a longer
    validation or test pair the rest is cut off, but scores of the written text are taken against the whole target.

    Args:
        seed: order of the training batches.
        cache: where the tokens are kept.
        source_files: a path, or one for each of train, val and test; one text a line.
        target_files: the same of their translations.
        files: a table (csv, tsv, json, parquet), or several; see `read_tables`.
        dataset: a local dataset directory, or a name on the hub.
        dataset_config: of the dataset, where it has several.
        source_column: of the tables or the dataset, such as `translation.en`.
        target_column: of the tables or the dataset.
        column_names: all columns of a csv or tsv file whose first line does not name them.
        tokenizer: trained here, unless the cache has it trained.
        max_length: most tokens of a side, its end included.
        validation_fraction: share of the training pairs to validate on, if the source has no validation split.
        test_fraction: share of the training pairs to test on, if the source has no test split; 0 for no test.
        split_seed: decides which pairs are held out.
        batch_size: pairs per step over all devices.
        tokens_per_batch: most tokens of either side per step over all devices, in place of `batch_size`.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: not exactly one source is given, or a number is out of range.
        DataError: in `prepare_data`, if the source cannot be read; in `setup`, if no pair is left.
    """

    yields: ClassVar[type] = Seq2SeqBatch
    pads: ClassVar[bool] = True

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        source_files: Aligned | None,
        target_files: Aligned | None,
        files: Files | None,
        dataset: str | None,
        dataset_config: str | None,
        source_column: str,
        target_column: str,
        column_names: list[str] | None,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Ge(2)],
        validation_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        split_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        tokens_per_batch: Annotated[int, Ge(1)] | None,
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers, tokens_per_batch=tokens_per_batch)
        sources = [source_files is not None or target_files is not None, files is not None, dataset is not None]
        if sum(sources) != 1 or (source_files is None) != (target_files is None):
            raise ConfigError(
                "data=parallel_text reads one source: give data.source_files and data.target_files, or data.files, or "
                "data.dataset, and leave the others null."
            )
        check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
        self.aligned, self.files, self.dataset = (source_files, target_files), files, dataset
        self.dataset_config, self.column_names = dataset_config, column_names
        self.columns = {"source_column": source_column, "target_column": target_column}
        self.tokenizer, self.max_length, self.split_seed = tokenizer, max_length, split_seed
        self.fractions = {"val": validation_fraction, "test": test_fraction}

    def prepare(self) -> Path:
        """Read, hold out and tokenise, unless it is cached.

        Raises:
            DataError: the source cannot be read.
        """
        found = self._read()
        surveys = {split: survey(corpus) for split, corpus in found.items()}
        for split, (count, _) in surveys.items():
            if not count:
                raise DataError(f"The {split} split of {self._source()} is empty: give a source with pairs.")
        splits = self._hold_out(found, surveys["train"][0])
        settings = stable_name_of(type(self.tokenizer)), self.tokenizer.settings()
        name = f"parallel_text-{digest(VERSION, surveys, self.fractions, self.split_seed, settings)}"
        return cached(self.cache, name, lambda directory: pack_pairs(directory, splits, self.tokenizer))

    def _read(self) -> dict[str, Corpus]:
        source, target = self.aligned
        if source is not None and target is not None:
            return aligned_lines(source, target)
        if self.dataset is not None:
            return of_dataset(self.dataset, self.dataset_config, self.columns)
        tables = read_tables(self.files, None, None, self.columns, self.column_names)
        return {split: of_table(self._source(), columns) for split, columns in tables.items()}

    def _source(self) -> str:
        if self.dataset is not None:
            return f"data.dataset={self.dataset}"
        key, files = ("files", self.files) if self.files is not None else ("source_files", self.aligned[0])
        return f"data.{key}={files['train'] if isinstance(files, dict) and 'train' in files else files}"

    def _hold_out(self, found: dict[str, Corpus], count: int) -> dict[str, Corpus]:
        """Take pairs at random out of "train" for the splits that the source does not bring itself."""
        wanted = {
            split: share
            for split, share in self.fractions.items()
            if split not in found and (split == "val" or share > 0)
        }
        dealt = deal(count, wanted, self.split_seed)
        for split, fraction in wanted.items():
            if not len(dealt[split]):
                name = "validation" if split == "val" else "test"
                raise DataError(
                    f"data.{name}_fraction={fraction} of {count} pairs leaves none for {split}: raise it, or give the "
                    "split."
                )
        kept = {split: np.isin(np.arange(count), rows).tolist() for split, rows in dealt.items()}
        splits = {**found, **{split: part(found["train"], pairs) for split, pairs in kept.items()}}
        return {split: splits[split] for split in NAMES if split in splits}

    def load(self) -> None:
        """Map the tokens into memory.

        Raises:
            DataError: no training pair is short enough.
        """
        entry = self.entry
        self.tokenizer.load(entry)
        size = self.tokenizer.vocabulary
        self.facts = Facts(vocabulary=size + 3, length=self.max_length, padding=size, begin=size + 1, end=size + 2)
        names = [split for split in NAMES if (entry / f"{split}.source.bin").exists()]
        self.pairs = {split: Translations(entry, split, self.tokenizer, self.facts) for split in names}
        if not len(self.pairs["train"]):
            raise DataError(
                f"data.max_length={self.max_length} leaves no training pair: the shortest is longer, so raise it."
            )
        self.splits = {**self.pairs}
        self.floors: dict[str, float] = {}
        self.unread = remark(entry)
        self.fingerprint = digest(fingerprint(entry), self.max_length)

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a source, with its end."""
        assert self.facts.end is not None
        return np.append(super().encode(text), self.facts.end)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text up to the end, without special tokens."""
        ids, end = list(tokens), self.facts.end
        return super().decode(ids[: ids.index(end)] if end in ids else ids)

    def describe(self) -> str:
        """Source, sizes of the splits, tokenizer, and what `max_length` does to the pairs."""
        sizes = "/".join(f"{len(split):,}" for split in self.pairs.values())
        kind = f"{self.tokenizer.kind} tokens of {self.facts.vocabulary:,}"
        left_out, *cut = (int(split.beyond.sum()) for split in self.pairs.values())
        source = self._source().partition("=")[2]
        return (
            f"ParallelText ({source}): {sizes} pairs of at most {self.max_length} {kind}; {left_out:,} training pairs "
            f"left out as longer or empty, {sum(cut):,} others cut{self.unread}"
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
            rows = (_encoded(tokenizer, unread, split, getattr(pair, side)) for pair in corpus)
            write_rows(*_files(directory, split, side), rows, token_type(tokenizer))
        if split != "train":
            references = (np.frombuffer(pair.target.encode("utf-8", errors="replace"), np.uint8) for pair in corpus)
            write_rows(*_files(directory, split, "reference"), references, np.uint8)
    unread.save(directory)


def _encoded(tokenizer: Tokenizer, unread: Unread, split: str, text: str) -> NDArray[Any]:
    unread.read(split, text)
    return tokenizer.encode(text)


def _files(directory: Path, split: str, column: str) -> tuple[Path, Path]:
    return directory / f"{split}.{column}.bin", directory / f"{split}.{column}.offsets"


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
        self._sides = tuple(Ragged(*_files(entry, split, side), token_type(tokenizer)) for side in SIDES)
        self._references = None if split == "train" else Ragged(*_files(entry, split, "reference"), np.uint8)
        self._most, self._facts = facts.length - 1, facts
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
        facts = self._facts
        assert facts.padding is not None
        assert facts.begin is not None
        assert facts.end is not None
        batch = pad_pairs(sources, targets, padding=facts.padding, begin=facts.begin, end=facts.end)
        if self._references is None:
            return batch
        return batch._replace(references=[self._references[row].tobytes().decode("utf-8") for row in rows])

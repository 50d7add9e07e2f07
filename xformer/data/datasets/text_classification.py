"""Text classification data: labelled texts from tables."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.core.digest import digest
from xformer.data.arrays import read_rows, write_rows
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.configs import RandomSplitConfig
from xformer.data.sampling.order import Balanced, Order
from xformer.data.sources.documents import framed
from xformer.data.sources.hub import NAMES, listed
from xformer.data.sources.prose import chapters
from xformer.data.sources.tables import Rows, TableSource, read_tables
from xformer.data.spec import DataSpec
from xformer.data.splits import LabelledSequences
from xformer.data.tokenised import TokenisedData, Unread, remark, token_type
from xformer.data.trivial_baselines import class_counts, majority
from xformer.errors import ConfigError, DataError

VERSION = 2
"""Raised whenever the packing changes: a cache written by another version is then not found."""
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class LabelledTextSource(TableSource):
    """Tables of texts and labels."""

    text_column: str  # the one with the text
    label_column: str  # the one with the label, a whole number or text


class LabelledText(NamedTuple):
    """The texts of an item, its label, and its name for messages."""

    texts: tuple[str, ...]
    label: str
    name: str


@dataclass(kw_only=True, eq=False, repr=False)
class LabelledTexts(TokenisedData):
    """Base class of labelled texts, tokenised and cached. Subclasses define rows and batches.

    The classes are the training split's labels: numbers in their order, then words in theirs. The tokenizer is trained
    on the training split alone. A batch is padded up to its longest text.
    """

    pads: ClassVar[bool] = True
    offline: ClassVar[str] = "data=text_classification, which reads the prose that Python ships"
    """Data of this kind that need no network."""

    source: TableSource  # where the tables come from; its columns are those with text, and then that of the label
    max_length: Annotated[int, Ge(1)]  # most tokens of a text; what is longer loses its end
    split: RandomSplitConfig  # which rows are held out where the source has no such split

    def prepare(self) -> Path:
        """Read and tokenise, unless it is cached.

        Raises:
            DataError: the tables cannot be read, or are not what they should be.
        """
        found = self._read()
        train = found["train"]
        dealt = self.split.deal(len(train), found, "texts")
        splits = {**found, **{split: [train[row] for row in sorted(rows.tolist())] for split, rows in dealt.items()}}
        splits = {split: splits[split] for split in NAMES if split in splits}
        self.classes = _ordered({row.label for row in splits["train"]})
        if len(self.classes) < 2:
            raise self._wrong("label_column", f"has one label alone in the training rows, {self.classes[0]}")
        numbers = {label: number for number, label in enumerate(self.classes)}
        for split, rows in splits.items():
            self._check_labels(split, {row.label for row in rows} - {*numbers}, held_out=split in dealt)
        content = {split: _hash(rows, numbers) for split, rows in splits.items()}
        name = f"labelled-{digest(VERSION, content, *self.tokenizer.identity)}"
        return cached(self.context.cache, name, lambda directory: self._pack(directory, splits, numbers))

    def _read(self) -> dict[str, list[LabelledText]]:
        tables: Mapping[str, Rows] = {"train": chapters()}
        if self.source.place is not None:
            tables = read_tables(self.source, offline=self.offline)
        return {
            split: [self._row(f"row {number} of {split}", *row) for number, row in enumerate(rows, start=1)]
            for split, rows in tables.items()
        }

    def _row(self, name: str, *values: Any) -> LabelledText:
        *texts, label = values
        for key, text in zip(self.source.columns, texts, strict=False):
            if not isinstance(text, str) or not text.strip():
                raise self._wrong(key, f"has no text in {name}, only {text!r}")
        if (not isinstance(label, str) or not label.strip()) and not isinstance(label, int):
            raise self._wrong("label_column", f"has no label in {name}, only {label!r}")
        return LabelledText(tuple(texts), str(label).strip(), name)

    def _wrong(self, key: str, problem: str) -> DataError:
        return DataError(
            f"data.source.{key}={self.source.columns[key]} {problem}: correct the row or choose another column."
        )

    def _check_labels(self, split: str, unknown: set[str], *, held_out: bool) -> None:
        """Refuse labels that cannot be learned."""
        if not unknown:
            return
        label, there = min(unknown), listed(self.classes)
        if held_out:
            raise DataError(
                f"data.split.seed={self.split.seed} holds out for {split} every row with the label {label} (the "
                f"training rows have {there}): another data.split.seed would keep some, or remove such a rare label."
            )
        raise self._wrong(
            "label_column", f"has the label {label} in {split}, which no training row has (those have {there})"
        )

    def _pack(self, directory: Path, splits: dict[str, list[LabelledText]], numbers: dict[str, int]) -> None:
        """Train the tokenizer on the texts of "train" only, and write every split's tokens, offsets and labels."""
        self.tokenizer.train([text for row in splits["train"] for text in row.texts])
        self.tokenizer.save(directory)
        dtype, unread = token_type(self.tokenizer), Unread(self.tokenizer)
        for name, rows in splits.items():
            files = directory / f"{name}.tokens", directory / f"{name}.offsets"
            write_rows(*files, self._tokens(name, rows, unread), dtype)
            labels = [numbers[row.label] for row in rows for _ in row.texts]
            np.array(labels, dtype=np.int64).tofile(directory / f"{name}.labels")
        unread.save(directory)
        sidecar = {"dtype": dtype.name, "splits": list(splits)}
        (directory / "tokens.json").write_text(json.dumps(sidecar), encoding="utf-8")

    def _tokens(self, split: str, rows: list[LabelledText], unread: Unread) -> Iterator[NDArray[Any]]:
        for row in rows:
            for key, text in zip(self.source.columns, row.texts, strict=False):
                unread.read(split, text)
                tokens = self.tokenizer.encode(text)
                if not len(tokens):  # nothing could be attended to
                    raise DataError(
                        f"data.source.{key}={self.source.columns[key]}, {row.name}, has only text that the tokenizer "
                        f"has no token for, {text[:_SHOWN]!r}: correct the row, or choose another tokenizer."
                    )
                yield tokens

    def load(self) -> None:
        """Map the tokens into memory."""
        entry = self.entry
        self.tokenizer.load(entry)
        padding, dtype = self.tokenizer.vocabulary, token_type(self.tokenizer)
        self.parts = {
            name: LabelledSequences(
                read_rows(entry / f"{name}.tokens", entry / f"{name}.offsets", dtype),
                np.fromfile(entry / f"{name}.labels", dtype=np.int64),
                padding,
                self.max_length,
            )
            for name in NAMES
            if (entry / f"{name}.labels").exists()
        }
        self.spec = DataSpec(
            vocabulary=padding + 1,
            length=self.max_length,
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=class_counts(self.parts["train"].labels, len(self.classes)),
            padding=padding,
        )
        self.splits, self.trivial_baselines = self.parts, majority(self.parts)
        self.unread, self.fingerprint = remark(entry), fingerprint(entry)

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Encode a text, cut at `max_length`.

        Raises:
            DataError: the text is empty, or the tokenizer has no token for it.
        """
        if not text.strip():
            raise DataError("An empty text cannot be classified: use at least one word.")
        ids = self.tokenizer.encode(text)[: self.max_length]
        if not len(ids):
            raise DataError(
                f"{text[:_SHOWN]!r} has no token that the model can read: use at least one word that the tokenizer "
                "knows."
            )
        return ids


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassification(LabelledTexts):
    """Labelled texts from tables; by default (no `files` or `dataset`) paragraphs of Python's own prose by chapter.

    Raises:
        ConfigError: both `balanced` and `loader.tokens_per_batch` are set.
    """

    yields: ClassVar[type] = ClassificationBatch

    source: LabelledTextSource
    balanced: bool  # whether a training epoch shows each class equally often, and not each text once

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balanced and self.loader.tokens_per_batch is not None:
            raise ConfigError(
                f"data.balanced=true and data.loader.tokens_per_batch={self.loader.tokens_per_batch} cannot be "
                "combined: one chooses the texts of a batch by class, the other by length."
            )

    def order(self) -> Order:
        """Each text once or, with `balanced`, each class equally often."""
        return Balanced(self.parts["train"].labels) if self.balanced else super().order()

    def describe(self) -> str:
        """Describe the source, split sizes, tokenizer and lengths."""
        source = self.source.place or "Python's own prose, by chapter"
        lengths = np.concatenate([part.lengths for part in self.parts.values()])
        return (
            f"TextClassification ({source}): {self.split_sizes()} texts of {self.spec.classes} classes, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocabulary:,}, {lengths.min()} to {lengths.max()} "
            f"tokens, {lengths.mean():.0f} on average{self.unread}"
        )


def _ordered(names: set[str]) -> list[str]:
    """Sort labels: integers by value, then words."""
    numbers = {name for name in names if re.fullmatch(r"[+-]?\d+", name)}
    return [*sorted(numbers, key=lambda name: (int(name), name)), *sorted(names - numbers)]


def _hash(rows: list[LabelledText], numbers: dict[str, int]) -> str:
    content = hashlib.sha256()
    for row in rows:
        for text in row.texts:
            content.update(framed(text) + numbers[row.label].to_bytes(4, "little"))
    return content.hexdigest()

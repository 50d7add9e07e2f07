"""Texts with a label each."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Interval
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.core.digest import digest
from xformer.data.arrays import Flat, write_rows
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.facts import Facts
from xformer.data.floors import majority
from xformer.data.labelled import LabelledSequences
from xformer.data.sampling.balanced import Balanced
from xformer.data.sampling.sampler import Order
from xformer.data.sources.chapters import chapters
from xformer.data.sources.hold_out import check_fractions
from xformer.data.sources.hub import NAMES
from xformer.data.sources.tables import Columns, Files, hold_out, read_tables
from xformer.data.tokenised import TokenisedData, Unread, remark, token_type
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.base import Tokenizer

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 2
SIDECAR = "tokens.json"
_LISTED = 12
_SHOWN = 40
_ROW = "row"
"""The column that says which row of its source a row was."""


@dataclass(frozen=True)
class Labelled:
    """Texts with the number of each one's class, and what to call each in a message."""

    texts: list[str]
    labels: list[int]
    names: list[str]


class TextClassification(TokenisedData):
    """Tables of texts and labels. With neither `files` nor `dataset`, paragraphs of Python's own prose by chapter.

    The classes are the training split's labels: numbers in their order, then words in theirs. The tokenizer is trained
    on the training split alone. A batch is padded up to its longest text.

    Args:
        seed: order of the training batches.
        cache: where the tokens are kept.
        files: a directory with a file for each split, a path or a pattern, several of these, or one for each split;
            csv, tsv, json or parquet.
        dataset: a local dataset directory, or a name on the hub.
        dataset_config: of the dataset, where it has several.
        column_names: all columns of a csv or tsv file whose first line does not name them.
        text_column: the one with the text.
        label_column: the one with the label, a whole number or text.
        tokenizer: trained here, unless the cache has it trained.
        max_length: most tokens of a text; what is longer loses its end.
        validation_fraction: share of the training rows to validate on, if the source has no validation split.
        test_fraction: share of the training rows to test on, if the source has no test split; 0 for no test.
        split_seed: decides which rows are held out.
        balanced: whether a training epoch shows each class equally often, and not each text once.
        batch_size: sequences per step over all devices.
        tokens_per_batch: most tokens per step over all devices, in place of `batch_size`; not with `balanced`.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: both `files` and `dataset` are given, or a number is out of range.
        DataError: in `prepare_data`, the tables cannot be read, a text or label is missing, or a split is empty.
    """

    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = True
    text_keys: ClassVar[tuple[str, ...]] = ("text_column",)
    """The keys of the columns with text; an item's texts are kept one after the other."""
    offline: ClassVar[str] = "data=text_classification, which reads the prose that Python ships"
    """Data of this kind that need no network."""

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        files: Files | None,
        dataset: str | None,
        dataset_config: str | None,
        column_names: list[str] | None,
        text_column: str,
        label_column: str,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Ge(1)],
        validation_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        split_seed: Annotated[int, Ge(0)],
        balanced: bool,
        batch_size: Annotated[int, Ge(1)],
        tokens_per_batch: Annotated[int, Ge(1)] | None,
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(seed, cache, batch_size=batch_size, num_workers=num_workers, tokens_per_batch=tokens_per_batch)
        if files is not None and dataset is not None:
            raise ConfigError(f"data.files={files} and data.dataset={dataset} exclude each other: set one to null.")
        if balanced and tokens_per_batch is not None:
            raise ConfigError(
                f"data.balanced=true and data.tokens_per_batch={tokens_per_batch} exclude each other: one chooses the "
                "texts of a batch by class, the other by length."
            )
        check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
        self.files, self.dataset, self.dataset_config, self.column_names = files, dataset, dataset_config, column_names
        self.columns = {"text_column": text_column, "label_column": label_column}
        self.tokenizer, self.max_length, self.split_seed, self.balanced = tokenizer, max_length, split_seed, balanced
        self.fractions = {"val": validation_fraction, "test": test_fraction}

    def prepare(self) -> Path:
        """Read and tokenise, unless it is cached.

        Raises:
            DataError: the tables cannot be read, or are not what they should be.
        """
        read = self._read()
        self._held_out = {*self.fractions} - {*read}
        tables = hold_out(read, self.fractions, self.split_seed)
        self.classes = _ordered(set(tables["train"]["label_column"]))
        splits = {name: self._labelled(name, tables.get(name)) for name in NAMES}
        found = {name: split for name, split in splits.items() if split is not None}
        content = {name: _hash(split) for name, split in found.items()}
        name = f"labelled-{digest(VERSION, content, type(self.tokenizer).__name__, self.tokenizer.settings())}"
        return cached(self.cache, name, lambda directory: _pack(directory, found, self.tokenizer))

    def _read(self) -> dict[str, Columns]:
        """The tables, every label as text."""
        if self.files is None and self.dataset is None:
            return {"train": _numbered("train", chapters())}
        tables = read_tables(
            self.files, self.dataset, self.dataset_config, self.columns, self.column_names, offline=self.offline
        )
        for split, table in tables.items():
            for column in self.text_keys:
                for row, text in enumerate(table[column], start=1):
                    if not isinstance(text, str) or not text.strip():
                        raise self._wrong(column, f"has no text in row {row} of {split}, only {text!r}")
            table["label_column"] = [
                self._label(label, f"row {row} of {split}") for row, label in enumerate(table["label_column"], start=1)
            ]
        return {split: _numbered(split, table) for split, table in tables.items()}

    def _label(self, value: Any, where: str) -> str:
        if (not isinstance(value, str) or not value.strip()) and not isinstance(value, int):
            raise self._wrong("label_column", f"has no label in {where}, only {value!r}")
        return str(value).strip()

    def _wrong(self, key: str, problem: str) -> DataError:
        return DataError(f"data.{key}={self.columns[key]} {problem}: correct the row or choose another column.")

    def _labelled(self, split: str, table: Columns | None) -> Labelled | None:
        """A split with numbered labels; None where there is, and need be, none."""
        if table is None and split == "test":
            return None
        if table is None or not table["label_column"]:
            key = "test_fraction" if split == "test" else "validation_fraction"
            raise DataError(
                f"data.{key}={self.fractions['test' if split == 'test' else 'val']} leaves no row for {split}: change "
                "it, or give more rows."
            )
        if len(self.classes) < 2:
            raise self._wrong("label_column", f"has one label alone in the training rows, {self.classes[0]}")
        classes = self.classes
        numbers = {name: number for number, name in enumerate(classes)}
        for label in table["label_column"]:
            if label not in numbers:
                there = ", ".join([*classes[:_LISTED], *(["..."] if len(classes) > _LISTED else [])])
                if split in self._held_out:
                    raise DataError(
                        f"data.split_seed={self.split_seed} holds out for {split} every row with the label {label} "
                        f"(the training rows have {there}): another data.split_seed would keep some, or leave so rare "
                        "a label out."
                    )
                raise self._wrong(
                    "label_column", f"has the label {label} in {split}, which no training row has (those have {there})"
                )
        items = zip(*(table[key] for key in self.text_keys), strict=True)
        labels = [numbers[label] for label in table["label_column"] for _ in self.text_keys]
        names = [f"data.{key}={self.columns[key]}, {row}," for row in table[_ROW] for key in self.text_keys]
        return Labelled([text for item in items for text in item], labels, names)

    def load(self) -> None:
        """Map the tokens into memory."""
        entry = self.entry
        self.tokenizer.load(entry)
        padding = self.tokenizer.vocabulary
        self.parts = self._unpack(entry, padding)
        train = self.parts["train"].labels
        self.splits = {**self.parts}
        self.facts = Facts(
            vocabulary=padding + 1,
            length=self.max_length,
            classes=len(self.classes),
            class_names=self.classes,
            class_counts=np.bincount(train, minlength=len(self.classes)).tolist(),
            padding=padding,
        )
        test = self.parts.get("test")
        self.floors = {} if test is None else {"majority class": majority(train, test.labels)}
        self.unread, self.fingerprint = remark(entry), fingerprint(entry)

    def _unpack(self, entry: Path, padding: int) -> dict[str, LabelledSequences]:
        sidecar = json.loads((entry / SIDECAR).read_text(encoding="utf-8"))
        return {
            name: LabelledSequences(
                Flat(entry / f"{name}.tokens", sidecar["dtype"]),
                np.fromfile(entry / f"{name}.offsets", dtype=np.int64),
                np.fromfile(entry / f"{name}.labels", dtype=np.int64),
                padding,
                self.max_length,
            )
            for name in sidecar["splits"]
        }

    def order(self) -> Order:
        """Each text once or, where it is asked for, each class equally often."""
        return Balanced(self.parts["train"].labels) if self.balanced else super().order()

    def encode(self, text: str) -> Int64[np.ndarray, " tokens"]:
        """Ids of a text, without what is beyond `max_length`.

        Raises:
            DataError: the text is empty, or the tokenizer has no token for it.
        """
        if not text.strip():
            raise DataError("An empty text has no class: give at least one word.")
        ids = self.tokenizer.encode(text)[: self.max_length]
        if not len(ids):
            raise DataError(f"{text[:40]!r} has no token that the model can read: give at least one word that it can.")
        return ids

    def describe(self) -> str:
        """Source, sizes of the splits, tokenizer and lengths."""
        source = self.files or self.dataset or "Python's own prose, by chapter"
        sizes = "/".join(f"{len(part):,}" for part in self.parts.values())
        lengths = np.concatenate([part.lengths for part in self.parts.values()])
        return (
            f"TextClassification ({source}): {sizes} texts of {self.facts.classes} classes, "
            f"{type(self.tokenizer).__name__} of {self.tokenizer.vocabulary:,}, {lengths.min()} to {lengths.max()} "
            f"tokens, {lengths.mean():.0f} on average{self.unread}"
        )


def _numbered(split: str, table: Columns) -> Columns:
    return table | {_ROW: [f"row {row} of {split}" for row, _ in enumerate(table["label_column"], start=1)]}


def _ordered(names: set[str]) -> list[str]:
    """Whole numbers by size, then words."""
    numbers = {name for name in names if re.fullmatch(r"[+-]?\d+", name)}
    return [*sorted(numbers, key=lambda name: (int(name), name)), *sorted(names - numbers)]


def _hash(split: Labelled) -> str:
    content = hashlib.sha256()
    for text, label in zip(split.texts, split.labels, strict=True):
        encoded = text.encode("utf-8", errors="surrogatepass")
        content.update(len(encoded).to_bytes(8, "little") + encoded + label.to_bytes(4, "little"))
    return content.hexdigest()


def _pack(directory: Path, splits: dict[str, Labelled], tokenizer: Tokenizer) -> None:
    """Train the tokenizer on the texts of "train" alone and write every split's tokens, offsets and labels."""
    tokenizer.train(splits["train"].texts)
    tokenizer.save(directory)
    dtype, unread = token_type(tokenizer), Unread(tokenizer)
    for name, split in splits.items():
        rows = _tokens(name, split, tokenizer, unread)
        write_rows(directory / f"{name}.tokens", directory / f"{name}.offsets", rows, dtype)
        np.array(split.labels, dtype=np.int64).tofile(directory / f"{name}.labels")
    unread.save(directory)
    (directory / SIDECAR).write_text(json.dumps({"dtype": dtype.name, "splits": list(splits)}), encoding="utf-8")


def _tokens(name: str, split: Labelled, tokenizer: Tokenizer, unread: Unread) -> Iterator[NDArray[Any]]:
    for text, where in zip(split.texts, split.names, strict=True):
        unread.read(name, text)
        tokens = tokenizer.encode(text)
        if not len(tokens):  # nothing could be attended to
            raise DataError(
                f"{where} has only text that the tokenizer has no token for, {text[:_SHOWN]!r}: correct the row, or "
                "choose another tokenizer."
            )
        yield tokens

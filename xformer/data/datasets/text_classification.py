"""Texts with a label each."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge, Interval
from jaxtyping import Int64
from numpy.typing import NDArray

from xformer.core.digest import digest, stable_name_of
from xformer.data.arrays import Flat, write_rows
from xformer.data.batch import ClassificationBatch
from xformer.data.cache import cached, fingerprint
from xformer.data.facts import Facts
from xformer.data.floors import majority
from xformer.data.labelled import LabelledSequences
from xformer.data.sampling.balanced import Balanced
from xformer.data.sampling.sampler import Order
from xformer.data.sources.hold_out import check_fractions, hold_out
from xformer.data.sources.hub import NAMES
from xformer.data.sources.prose import chapters
from xformer.data.sources.tables import Columns, Files, read_tables
from xformer.data.tokenised import TokenisedData, Unread, remark, token_type
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.base import Tokenizer

# Raise it whenever the packing changes: a cache written by another version is then not found.
VERSION = 2
SIDECAR = "tokens.json"
_LISTED = 12
_SHOWN = 40


class LabelledText(NamedTuple):
    """The texts of an item, its label, and what to call it in a message."""

    texts: tuple[str, ...]
    label: str
    name: str


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
        # The columns with text, which are kept one after the other, and then that of the label.
        self.columns = {"text_column": text_column, "label_column": label_column}
        self.tokenizer, self.max_length, self.split_seed, self.balanced = tokenizer, max_length, split_seed, balanced
        self.fractions = {"val": validation_fraction, "test": test_fraction}

    def prepare(self) -> Path:
        """Read and tokenise, unless it is cached.

        Raises:
            DataError: the tables cannot be read, or are not what they should be.
        """
        read = self._read()
        splits = hold_out(read, self.fractions, self.split_seed)
        self.classes = _ordered({row.label for row in splits["train"]})
        numbers = {label: number for number, label in enumerate(self.classes)}
        for split in NAMES:
            if split != "test" or split in splits:
                self._check(split, splits.get(split, []), numbers, held_out=split not in read)
        content = {split: _hash(rows, numbers) for split, rows in splits.items()}
        name = f"labelled-{digest(VERSION, content, stable_name_of(type(self.tokenizer)), self.tokenizer.settings())}"
        return cached(self.cache, name, lambda directory: self._pack(directory, splits, numbers))

    def _read(self) -> dict[str, list[LabelledText]]:
        tables: Mapping[str, Columns] = {"train": chapters()}
        if self.files is not None or self.dataset is not None:
            tables = read_tables(
                self.files, self.dataset, self.dataset_config, self.columns, self.column_names, offline=self.offline
            )
        values = {split: zip(*(table[key] for key in self.columns), strict=True) for split, table in tables.items()}
        return {
            split: [self._row(f"row {number} of {split}", *row) for number, row in enumerate(rows, start=1)]
            for split, rows in values.items()
        }

    def _row(self, name: str, *values: Any) -> LabelledText:
        *texts, label = values
        for key, text in zip(self.columns, texts, strict=False):
            if not isinstance(text, str) or not text.strip():
                raise self._wrong(key, f"has no text in {name}, only {text!r}")
        if (not isinstance(label, str) or not label.strip()) and not isinstance(label, int):
            raise self._wrong("label_column", f"has no label in {name}, only {label!r}")
        return LabelledText(tuple(texts), str(label).strip(), name)

    def _wrong(self, key: str, problem: str) -> DataError:
        return DataError(f"data.{key}={self.columns[key]} {problem}: correct the row or choose another column.")

    def _check(self, split: str, rows: list[LabelledText], numbers: dict[str, int], *, held_out: bool) -> None:
        """Refuse a split without rows, and labels that cannot be learned."""
        if not rows:
            key, of = ("test_fraction", "test") if split == "test" else ("validation_fraction", "val")
            raise DataError(f"data.{key}={self.fractions[of]} leaves no row for {split}: change it, or give more rows.")
        if len(self.classes) < 2:
            raise self._wrong("label_column", f"has one label alone in the training rows, {self.classes[0]}")
        label = next((row.label for row in rows if row.label not in numbers), None)
        if label is None:
            return
        there = ", ".join([*self.classes[:_LISTED], *(["..."] if len(self.classes) > _LISTED else [])])
        if held_out:
            raise DataError(
                f"data.split_seed={self.split_seed} holds out for {split} every row with the label {label} (the "
                f"training rows have {there}): another data.split_seed would keep some, or leave so rare a label out."
            )
        raise self._wrong(
            "label_column", f"has the label {label} in {split}, which no training row has (those have {there})"
        )

    def _pack(self, directory: Path, splits: dict[str, list[LabelledText]], numbers: dict[str, int]) -> None:
        """Train the tokenizer on the texts of "train" alone and write every split's tokens, offsets and labels."""
        self.tokenizer.train([text for row in splits["train"] for text in row.texts])
        self.tokenizer.save(directory)
        dtype, unread = token_type(self.tokenizer), Unread(self.tokenizer)
        for name, rows in splits.items():
            files = directory / f"{name}.tokens", directory / f"{name}.offsets"
            write_rows(*files, self._tokens(name, rows, unread), dtype)
            labels = [numbers[row.label] for row in rows for _ in row.texts]
            np.array(labels, dtype=np.int64).tofile(directory / f"{name}.labels")
        unread.save(directory)
        (directory / SIDECAR).write_text(json.dumps({"dtype": dtype.name, "splits": list(splits)}), encoding="utf-8")

    def _tokens(self, split: str, rows: list[LabelledText], unread: Unread) -> Iterator[NDArray[Any]]:
        for row in rows:
            for key, text in zip(self.columns, row.texts, strict=False):
                unread.read(split, text)
                tokens = self.tokenizer.encode(text)
                if not len(tokens):  # nothing could be attended to
                    raise DataError(
                        f"data.{key}={self.columns[key]}, {row.name}, has only text that the tokenizer has no token "
                        f"for, {text[:_SHOWN]!r}: correct the row, or choose another tokenizer."
                    )
                yield tokens

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
            f"{self.tokenizer.kind} of {self.tokenizer.vocabulary:,}, {lengths.min()} to {lengths.max()} "
            f"tokens, {lengths.mean():.0f} on average{self.unread}"
        )


def _ordered(names: set[str]) -> list[str]:
    """Whole numbers by size, then words."""
    numbers = {name for name in names if re.fullmatch(r"[+-]?\d+", name)}
    return [*sorted(numbers, key=lambda name: (int(name), name)), *sorted(names - numbers)]


def _hash(rows: list[LabelledText], numbers: dict[str, int]) -> str:
    content = hashlib.sha256()
    for row in rows:
        for text in row.texts:
            encoded = text.encode("utf-8", errors="surrogatepass")
            content.update(len(encoded).to_bytes(8, "little") + encoded + numbers[row.label].to_bytes(4, "little"))
    return content.hexdigest()

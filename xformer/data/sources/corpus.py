"""Pairs of texts as streams that can be read again: two aligned files, tables, or a dataset on disk or on the hub."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from xformer.data.sources.tables import Columns
from xformer.data.sources.text import NAMES, load_dataset_splits
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.utf8 import refuse_others, unmarked

if TYPE_CHECKING:
    from datasets import Dataset

Aligned = str | dict[str, str]
Corpus = Iterable["Pair"]
KEYS = ("source_column", "target_column")
_ROWS = 1000

OFFLINE = "data=transduction, which is generated here, or files of your own"


class Pair(NamedTuple):
    """A text and its translation."""

    source: str
    target: str


class AlignedFiles:
    """Two files of which each line is the other's translation; a line ends with LF or CR LF.

    Args:
        source: path of the texts.
        target: path of their translations.
    """

    def __init__(self, source: str, target: str) -> None:
        self.names = f"data.source_files={source}", f"data.target_files={target}"
        self.paths = Path(source).expanduser(), Path(target).expanduser()

    def __iter__(self) -> Iterator[Pair]:
        """Read the pairs.

        Raises:
            DataError: a file cannot be read or is not UTF-8, or they have different numbers of lines.
        """
        lines = tuple(_lines(path, name) for path, name in zip(self.paths, self.names, strict=True))
        for number, (source, target) in enumerate(zip_longest(*lines)):
            if source is None or target is None:
                counts = [
                    number + (text is not None) + sum(1 for _ in rest)
                    for text, rest in zip((source, target), lines, strict=True)
                ]
                raise DataError(
                    f"{self.names[0]} has {counts[0]:,} lines and {self.names[1]} {counts[1]:,}: each line must be "
                    "the translation of the other's."
                )
            yield Pair(source, target)


def _lines(path: Path, name: str) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    refuse_others(line, name)
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{name} is not UTF-8 in line {number:,}: convert the file.") from error
                yield (unmarked(text) if number == 1 else text).removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise DataError(
            f"{name} cannot be read ({error.strerror}, seen from {Path.cwd()}): correct the path."
        ) from error


class Table:
    """Two columns in memory.

    Args:
        name: of the source, for messages.
        columns: the values by key of the configuration.
    """

    def __init__(self, name: str, columns: Columns) -> None:
        self.name, self.columns = name, columns

    def __iter__(self) -> Iterator[Pair]:
        """Read the pairs.

        Raises:
            DataError: a value is no text.
        """
        return _pairs(self.name, zip(*(self.columns[key] for key in KEYS), strict=True))


class Rows:
    """Two columns of a dataset, which the library maps into memory; nested ones are named with a dot.

    Args:
        name: of the source, for messages.
        dataset: one split.
        columns: a key of the configuration, and the column it names.

    Raises:
        DataError: there is no such column.
    """

    def __init__(self, name: str, dataset: "Dataset", columns: Mapping[str, str]) -> None:
        dataset = dataset.flatten()
        for key, column in columns.items():
            if column not in dataset.column_names:
                there = ", ".join(dataset.column_names)
                raise DataError(f"data.{key}={column} is not in {name}: its columns are {there}.")
        self.name, self.columns = name, [columns[key] for key in KEYS]
        self.dataset = dataset.select_columns(sorted(set(self.columns))).with_format("arrow")

    def __iter__(self) -> Iterator[Pair]:
        """Read the pairs.

        Raises:
            DataError: a value is no text.
        """
        parts = (
            zip(*(part.column(column).to_pylist() for column in self.columns), strict=True)
            for part in self.dataset.iter(_ROWS)
        )
        return _pairs(self.name, (row for part in parts for row in part))


def _pairs(name: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[Pair]:
    for number, row in enumerate(rows, start=1):
        for key, text in zip(KEYS, row, strict=True):
            if not isinstance(text, str):
                raise DataError(f"{name} has no text in row {number:,} of data.{key}: correct it or drop the row.")
        yield Pair(*map(unmarked, row))


class Part:
    """Some pairs of a corpus.

    Args:
        corpus: all.
        kept: for each whether it is taken.
    """

    def __init__(self, corpus: Corpus, kept: Bool[np.ndarray, " pairs"]) -> None:
        self.corpus, self.kept = corpus, kept

    def __iter__(self) -> Iterator[Pair]:
        return compress(self.corpus, self.kept.tolist())


def aligned(source: Aligned, target: Aligned) -> dict[str, Corpus]:
    """Pairs of aligned files by split, under "train" alone where only a path is given.

    Raises:
        ConfigError: the splits of one are not those of the other, or not train, val and test.
    """
    sources, targets = ({"train": files} if isinstance(files, str) else files for files in (source, target))
    if "train" not in sources or not set(sources) == set(targets) <= set(NAMES):
        raise ConfigError(
            f"data.source_files has {', '.join(sources)} and data.target_files {', '.join(targets)}: give both a path, "
            "or the same of train, val and test, train at least."
        )
    return {split: AlignedFiles(sources[split], targets[split]) for split in NAMES if split in sources}


def of_dataset(dataset: str, config: str | None, columns: Mapping[str, str]) -> dict[str, Corpus]:
    """Pairs of a local dataset directory or one on the hub, by split.

    Raises:
        DataError: it is neither here nor reachable, or lacks a column.
    """
    return {
        split: Rows(f"data.dataset={dataset}", part, columns)
        for split, part in load_dataset_splits(dataset, config, offline=OFFLINE).items()
    }


def survey(corpus: Corpus) -> tuple[int, str]:
    """The number of pairs and a hash of all."""
    content, count = hashlib.sha256(), 0
    for pair in corpus:
        count += 1
        for text in pair:
            encoded = text.encode("utf-8", errors="surrogatepass")
            content.update(len(encoded).to_bytes(8, "little") + encoded)
    return count, content.hexdigest()

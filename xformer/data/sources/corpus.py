"""Parallel corpora as re-readable streams of text pairs: aligned files, tables, or a dataset on disk or the hub."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, zip_longest
from pathlib import Path
from typing import ClassVar, NamedTuple

from xformer.data.sources.documents import framed
from xformer.data.sources.hub import NAMES
from xformer.data.sources.tables import Rows, TableSource
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.pieces import rereadable
from xformer.tokenizers.utf8 import refuse_others, unmarked

Aligned = str | dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ParallelSource(TableSource):
    """Settings of a parallel corpus: two aligned files, tables with a column for each side, or a dataset.

    Raises:
        ConfigError: not exactly one source is given.
    """

    source_keys: ClassVar[tuple[str, ...]] = ("source_files", "files", "dataset")

    source_files: Aligned | None  # a path, or one for each of train, val and test; one text a line
    target_files: Aligned | None  # the same of their translations
    source_column: str  # of the tables or the dataset, such as `translation.en`
    target_column: str  # of the tables or the dataset

    def __post_init__(self) -> None:
        one_side = (self.source_files is None) != (self.target_files is None)
        if one_side or sum(getattr(self, key) is not None for key in self.source_keys) != 1:
            raise ConfigError(
                "data=parallel_text reads one source: set data.source.source_files and data.source.target_files, or "
                "data.source.files, or data.source.dataset, and leave the others null."
            )


class Pair(NamedTuple):
    """A text and its translation."""

    source: str
    target: str


Corpus = Iterable[Pair]
"""Pairs that can be read any number of times."""


@rereadable
def of_files(source: str, target: str) -> Iterator[Pair]:
    """Pairs of lines from two aligned files; a line ends with LF or CR LF.

    Args:
        source: path of the texts.
        target: path of their translations.

    Raises:
        DataError: a file cannot be read or is not UTF-8, or they have different numbers of lines.
    """
    names = f"data.source.source_files={source}", f"data.source.target_files={target}"
    lines = tuple(_lines(Path(path).expanduser(), name) for path, name in zip((source, target), names, strict=True))
    for number, (text, translation) in enumerate(zip_longest(*lines)):
        if text is None or translation is None:
            counts = [
                number + (line is not None) + sum(1 for _ in rest)
                for line, rest in zip((text, translation), lines, strict=True)
            ]
            raise DataError(
                f"{names[0]} has {counts[0]:,} lines and {names[1]} {counts[1]:,}: each line must be the translation "
                "of the other's."
            )
        yield Pair(text, translation)


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


def aligned_lines(source: Aligned, target: Aligned) -> dict[str, Corpus]:
    """Pairs of aligned files by split; a single path is the split "train".

    Raises:
        ConfigError: the splits of one are not those of the other, or not train, val and test.
    """
    sources, targets = ({"train": files} if isinstance(files, str) else files for files in (source, target))
    if "train" not in sources or not set(sources) == set(targets) <= set(NAMES):
        raise ConfigError(
            f"data.source.source_files has {', '.join(sources)} and data.source.target_files {', '.join(targets)}: "
            "set both to a path, or both to the same splits: train, and optionally val and test."
        )
    return {split: of_files(sources[split], targets[split]) for split in NAMES if split in sources}


@rereadable
def of_rows(name: str, rows: Rows) -> Iterator[Pair]:
    """Pairs from the rows of a table.

    Args:
        name: of the table, for messages.
        rows: a text and its translation each.

    Raises:
        DataError: a value is not text.
    """
    for number, row in enumerate(rows, start=1):
        for key, text in zip(("source_column", "target_column"), row, strict=True):
            if not isinstance(text, str):
                raise DataError(
                    f"{name} has no text in row {number:,} of data.source.{key}: correct it or drop the row."
                )
        yield Pair(*row)


@rereadable
def part(corpus: Corpus, kept: Iterable[bool]) -> Iterator[Pair]:
    """The pairs of a corpus for which `kept` is true."""
    return compress(corpus, kept)


@rereadable
def corpus_texts(corpus: Corpus) -> Iterator[str]:
    """Both sides of each pair, one after the other."""
    for pair in corpus:
        yield from pair


def survey(corpus: Corpus) -> tuple[int, str]:
    """Count the pairs, and hash their content."""
    content, count = hashlib.sha256(), 0
    for pair in corpus:
        count += 1
        content.update(b"".join(map(framed, pair)))
    return count, content.hexdigest()

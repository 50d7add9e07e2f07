"""Rows of tables by split: csv, tsv, json and parquet files, or a dataset on disk or the hub.

Datasets are read by `datasets`, files by pyarrow: of a csv file `datasets` takes a missing field for an empty text and,
where every row has a field too many, the first column for an index; of a json file it takes a missing key for null.
Here such a row is refused by its number.
"""

import codecs
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.data.sources.hub import NAMES, DatasetSource, first_line, listed, load_dataset_splits
from xformer.data.sources.text import expand_pattern, expand_patterns
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.pieces import rereadable
from xformer.tokenizers.utf8 import decode_utf8, unmarked

if TYPE_CHECKING:
    from datasets import Dataset

Files = str | list[str] | dict[str, str]
Rows = Iterable[tuple[Any, ...]]
"""The values of the wanted columns, row by row, which can be read any number of times."""

_PORTION = 1000


@dataclass(frozen=True, kw_only=True)
class TableSource(DatasetSource):
    """Settings of tables with text columns. A field of a nested column is named with a dot: `translation.de`."""

    # a directory with a file for each split (train.*, validation.* or dev.*, test.*); or a path or a pattern of files
    # that are read one after the other, or a list of them; or such a path or pattern for each of "train", "val" and
    # "test". They are csv, tsv, json or parquet.
    files: Files | None
    column_names: list[str] | None  # all columns of a csv or tsv file whose first line does not name them

    @property
    def columns(self) -> dict[str, str]:
        """The columns to read, in order, each under its configuration key (`text_column`)."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_column")}


def read_tables(source: TableSource, *, offline: str = "data.source.files of your own") -> dict[str, Rows]:
    """Read the rows of `source.columns` by split; a source without splits is the split "train".

    Every value of a csv or tsv file is text; a tsv file has no quotes, only tabs and line ends separate. Datasets stay
    on disk.

    Args:
        source: with files or a dataset.
        offline: data of this kind that need no network, to offer where there is none.

    Raises:
        ConfigError: `files` names an unknown split.
        DataError: a file or dataset is missing, empty, damaged or ragged, or lacks a column.
    """
    wanted = tuple(source.columns.values())
    if source.files is not None:
        return {
            split: _rows([_read(path, source) for path in paths], wanted)
            for split, paths in _by_split(source.files).items()
        }
    found = load_dataset_splits(source, source.columns, offline=offline)
    for part in found.values():
        _check(source, f"data.source.dataset={source.dataset}", part.column_names, part.num_rows)
    return {split: _rows(_portions(part.select_columns(sorted({*wanted}))), wanted) for split, part in found.items()}


@rereadable
def _portions(dataset: "Dataset") -> Iterator[Any]:
    yield from dataset.with_format("arrow").iter(_PORTION)


@rereadable
def _rows(tables: Iterable[Any], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for table in tables:
        yield from zip(*(map(_unmarked, table.column(column).to_pylist()) for column in columns), strict=True)


def _unmarked(value: Any) -> Any:
    return unmarked(value) if isinstance(value, str) else value


def _check(source: TableSource, name: str, there: Sequence[str], rows: int) -> None:
    """Refuse a table without rows, or without one of the columns."""
    for key, column in source.columns.items():
        if there.count(column) != 1:
            problem = "is twice" if column in there else "is not"
            raise DataError(
                f"data.source.{key}={column} {problem} in {name}: its columns are {listed(there)}; where a first line "
                "does not name them, data.source.column_names would."
            )
    if not rows:
        raise DataError(f"{name} has no rows: use a source with rows.")


def _by_split(files: Files) -> dict[str, list[Path]]:
    if isinstance(files, dict):
        for split in files:
            if split not in NAMES:
                raise ConfigError(f"data.source.files.{split} is not a split: use train, and optionally val and test.")
        if "train" not in files:
            raise ConfigError(f"data.source.files={files} has no file for train: add one.")
        return {split: expand_pattern(files[split]) for split in NAMES if split in files}
    if isinstance(files, list) or not Path(files).expanduser().is_dir():
        return {"train": expand_patterns(files, "use a path, a pattern or a directory")}
    found: dict[str, list[Path]] = {}
    entries = sorted(path for path in Path(files).expanduser().iterdir() if path.suffix.lower() in _READERS)
    for split, names in NAMES.items():
        paths = [path for path in entries if path.stem in names and path.is_file()]
        if len(paths) > 1:
            several = listed(path.name for path in paths)
            raise DataError(f"data.source.files={files} has several files for {split} ({several}): name one of them.")
        if paths:
            found[split] = paths
    if "train" not in found:
        raise DataError(
            f"data.source.files={files} has no file train with one of the extensions {', '.join(_READERS)}: use the "
            "path of a file."
        )
    return found


def _read(path: Path, source: TableSource) -> Any:
    from pyarrow import types

    reader, name = _READERS.get(path.suffix.lower()), f"data.source.files={path}"
    if reader is None:
        raise DataError(f"{name} has no known extension: use one of {', '.join(_READERS)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}): make it readable.") from error
    if not content.strip():
        raise DataError(f"{name} is empty: use a file with rows.")
    try:
        table = reader(content, name, source.column_names)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:  # pyarrow's among them
        kind, reason = path.suffix[1:], first_line(error)
        raise DataError(f"{name} cannot be read as {kind} ({reason}): correct the file.") from error
    while any(types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    table = table.rename_columns([unmarked(name) for name in table.column_names])
    _check(source, name, table.column_names, table.num_rows)
    return table


def _separated(content: bytes, name: str, column_names: list[str] | None, *, delimiter: str, quote: str | bool) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    decode_utf8(content, name)
    content = content.removeprefix(codecs.BOM_UTF8)

    ragged: list[Any] = []  # an error that the handler raised would not come out

    def keep(row: Any) -> str:
        ragged.append(row)
        return "error"

    parse = csv.ParseOptions(
        delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote), invalid_row_handler=keep
    )
    # A block holds whole rows, so one of the file's size never cuts one; without threads a bad row has its number.
    read = csv.ReadOptions(column_names=column_names, use_threads=False, block_size=len(content) + 1)
    try:
        names = csv.open_csv(io.BytesIO(content), read_options=read, parse_options=parse).schema.names
        convert = csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
        table = csv.read_csv(io.BytesIO(content), read, parse, convert)
    except pa.ArrowInvalid as error:
        if not ragged:
            raise
        row, named = ragged[0], column_names is None  # by its first line, which is no row
        raise DataError(
            f"{name} is ragged: row {row.number - named} has {row.actual_columns} columns, and {row.expected_columns} "
            "are expected; correct the row."
        ) from error
    first = [str(value) for row in table.slice(0, 1).to_pylist() for value in row.values()]
    if {name.lower() for name in column_names or []} & {value.strip().lower() for value in first}:
        raise DataError(
            f"{name} names its columns in its first line ({listed(first)}): set data.source.column_names=null, and "
            "name the columns to read, such as data.source.label_column, these names."
        )
    return table


def _json(content: bytes, name: str, column_names: list[str] | None) -> Any:
    """Read JSON: a list of objects, or one object per line; rows need the first one's keys."""
    import pyarrow as pa

    text = decode_utf8(content, name)
    rows = json.loads(text) if text.lstrip().startswith("[") else list(_lines(text))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name} has a row {number} that is not an object: write {{column: value, ...}}.")
        lacking = [str(key) for key in rows[0] if key not in row]
        if lacking:
            raise DataError(f"{name} is ragged: row {number} has no {lacking[0]}; correct the row.")
    return pa.Table.from_pylist(rows)


def _lines(text: str) -> Iterator[Any]:
    # Not splitlines(), which also cuts at separators that a JSON string may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from error


def _parquet(content: bytes, name: str, column_names: list[str] | None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    return parquet.read_table(pa.BufferReader(content))


_READERS: dict[str, Callable[[bytes, str, list[str] | None], Any]] = {
    ".csv": partial(_separated, delimiter=",", quote='"'),
    ".tsv": partial(_separated, delimiter="\t", quote=False),
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
}

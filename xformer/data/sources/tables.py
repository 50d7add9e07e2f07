"""Reading tables by split and column: csv, tsv, json and parquet files, or a dataset on disk or the hub.

Datasets are read by `datasets`, files by pyarrow: of a csv file `datasets` takes a missing field for an empty text and,
where every row has a field too many, the first column for an index; of a json file it takes a missing key for null.
Here such a row is refused by its number.
"""

import codecs
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from xformer.data.sources.hub import NAMES, DatasetSource, first_line, load_dataset_splits
from xformer.data.sources.text import expand_pattern
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.utf8 import decode_utf8, unmarked

Files = str | list[str] | dict[str, str]
Columns = dict[str, list[Any]]
"""The values of each wanted column, by the key of the configuration that names it; all equally long."""

_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class TableSource(DatasetSource):
    """Settings of tables with text columns. A field of a nested column is named with a dot: `translation.de`.

    Attributes:
        files: a directory with a file for each split (train.*, validation.* or dev.*, test.*); or a path or a pattern
            of files that are read one after the other, or a list of them; or such a path or pattern for each of
            "train", "val" and "test". They are csv, tsv, json or parquet.
        column_names: all columns of a csv or tsv file whose first line does not name them.
    """

    files: Files | None
    column_names: list[str] | None

    @property
    def columns(self) -> dict[str, str]:
        """The columns to read, in order, each under its configuration key (`text_column`)."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_column")}


def read_tables(source: TableSource, *, offline: str = "data.source.files of your own") -> dict[str, Columns]:
    """Read columns by split; a source without splits is the split "train".

    Every value of a csv or tsv file is text; a tsv file has no quotes, only tabs and line ends separate.

    Args:
        source: with files or a dataset.
        offline: data of this kind that need no network, to offer where there is none.

    Returns:
        For each split, the values of each column under its key of `source.columns`.

    Raises:
        ConfigError: `files` names an unknown split.
        DataError: A file or dataset is missing, empty, damaged or ragged, or lacks a column.
    """
    files, dataset, columns = source.files, source.dataset, source.columns
    if files is not None:
        return {
            split: _joined([_read(path, columns, source.column_names) for path in paths])
            for split, paths in _by_split(files).items()
        }
    assert dataset is not None
    found = load_dataset_splits(dataset, source.dataset_config, offline=offline)
    return {
        split: _pick(part.with_format("arrow")[:], f"data.source.dataset={dataset}", columns)
        for split, part in found.items()
    }


def _joined(tables: list[Columns]) -> Columns:
    return {key: [value for table in tables for value in table[key]] for key in tables[0]}


def _by_split(files: Files) -> dict[str, list[Path]]:
    if isinstance(files, dict):
        for split in files:
            if split not in NAMES:
                raise ConfigError(f"data.source.files.{split} is not a split: use train, and optionally val and test.")
        if "train" not in files:
            raise ConfigError(f"data.source.files={files} has no file for train: add one.")
        return {split: expand_pattern(files[split]) for split in NAMES if split in files}
    if isinstance(files, str) and Path(files).expanduser().is_dir():
        return _in_directory(Path(files).expanduser())
    paths = [path for entry in ([files] if isinstance(files, str) else files) for path in expand_pattern(entry)]
    if not paths:
        raise DataError("data.source.files=[] names no file: use a path, a pattern or a directory.")
    return {"train": paths}


def _in_directory(directory: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for split, names in NAMES.items():
        paths = sorted(
            p for p in directory.iterdir() if p.stem in names and p.suffix.lower() in _READERS and p.is_file()
        )
        if len(paths) > 1:
            listed = ", ".join(path.name for path in paths)
            raise DataError(
                f"data.source.files={directory} has several files for {split} ({listed}): name one of them."
            )
        if paths:
            found[split] = paths
    if "train" not in found:
        raise DataError(
            f"data.source.files={directory} has no file train with one of the extensions {', '.join(_READERS)}: use "
            "the path of a file."
        )
    return found


def _read(path: Path, columns: Mapping[str, str], column_names: list[str] | None) -> Columns:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"data.source.files={path} has no known extension: use one of {', '.join(_READERS)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"data.source.files={path} cannot be read ({error.strerror}): make it readable.") from error
    if not content.strip():
        raise DataError(f"data.source.files={path} is empty: use a file with rows.")
    return _pick(reader(path, content, column_names), f"data.source.files={path}", columns)


def _pick(table: Any, source: str, columns: Mapping[str, str]) -> Columns:
    while any(_is_struct(field.type) for field in table.schema):
        table = table.flatten()
    table = table.rename_columns([unmarked(name) for name in table.column_names])
    for key, column in columns.items():
        if table.column_names.count(column) != 1:
            problem = "is twice" if column in table.column_names else "is not"
            there = ", ".join(name[:40] for name in table.column_names[:_LISTED])
            raise DataError(
                f"data.source.{key}={column} {problem} in {source}: its columns are {there}; where a first line does "
                "not name them, data.source.column_names would."
            )
    if not table.num_rows:
        raise DataError(f"{source} has no rows: use a source with rows.")
    return {key: [*map(_unmarked, table.column(column).to_pylist())] for key, column in columns.items()}


def _unmarked(value: Any) -> Any:
    return unmarked(value) if isinstance(value, str) else value


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def _separated(path: Path, content: bytes, column_names: list[str] | None, *, delimiter: str, quote: str | bool) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    decode_utf8(content, f"data.source.files={path}")
    content = content.removeprefix(codecs.BOM_UTF8)
    ragged: list[Any] = []

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
        if ragged:
            row, named = ragged[0], column_names is None  # its first line, which is no row
            raise DataError(
                f"data.source.files={path} is ragged: row {row.number - named} has {row.actual_columns} columns, and "
                f"{row.expected_columns} are expected; correct the row."
            ) from error
        raise _damaged(path, error) from error
    _refuse_header(path, table, column_names or [])
    return table


def _refuse_header(path: Path, table: Any, column_names: list[str]) -> None:
    """Refuse a header line if `column_names` is set, as it would be read as a row."""
    first = [str(value) for row in table.slice(0, 1).to_pylist() for value in row.values()]
    if {name.lower() for name in column_names} & {value.strip().lower() for value in first}:
        raise DataError(
            f"data.source.files={path} names its columns in its first line "
            f"({', '.join(value[:40] for value in first)}): set data.source.column_names=null, and name the columns "
            "to read, such as data.source.label_column, these names."
        )


def _json(path: Path, content: bytes, column_names: list[str] | None) -> Any:
    """Read JSON: a list of objects, or one object per line; rows need the first one's keys."""
    import pyarrow as pa

    text = decode_utf8(content, f"data.source.files={path}")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else list(_lines(text))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"data.source.files={path} has a row {number} that is not an object: write {{column: value, ...}}."
            )
        lacking = [str(key) for key in rows[0] if key not in row]
        if lacking:
            raise DataError(f"data.source.files={path} is ragged: row {number} has no {lacking[0]}; correct the row.")
    try:
        return pa.Table.from_pylist(rows)
    except (ValueError, pa.ArrowTypeError, OverflowError) as error:
        raise _damaged(path, error) from error


def _lines(text: str) -> Iterator[Any]:
    # Not splitlines(), which also cuts at separators that a JSON string may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from error


def _parquet(path: Path, content: bytes, column_names: list[str] | None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"data.source.files={path} cannot be read as {path.suffix[1:]} ({first_line(error)}): correct the file."
    )


_READERS: dict[str, Callable[[Path, bytes, list[str] | None], Any]] = {
    ".csv": partial(_separated, delimiter=",", quote='"'),
    ".tsv": partial(_separated, delimiter="\t", quote=False),
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
}

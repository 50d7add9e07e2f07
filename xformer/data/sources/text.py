"""Where text comes from: files, a dataset on disk or on the hub, or the prose that every Python ships."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xformer.data.sources.documents import Documents, Piece, document, in_files, in_memory
from xformer.data.sources.hub import NAMES, check_columns, first_line, load_dataset_splits
from xformer.data.sources.prose import prose
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.pieces import rereadable
from xformer.tokenizers.utf8 import unmarked

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

OFFLINE = "data.dataset=null, which reads the prose that Python ships"
ROWS = 1000
# Files of text in a directory, such as wiki.train.raw: a split each.
TEXT_FILES = {".txt", ".raw", ".tokens"}


def read_documents(
    files: str | list[str] | None,
    dataset: str | None,
    config: str | None,
    column: str,
    *,
    joined: bool = False,
    streaming: bool = False,
) -> dict[str, Documents]:
    """Find the documents, by split where the source has splits and under "train" alone where it has not.

    They are read when they are iterated, a piece at a time, and what is wrong inside them is said then.

    Args:
        files: A path, a glob pattern, or several of either; one document each.
        dataset: A local directory, or a name on the hub. A directory of text files has a document for each split.
        config: Of the dataset, where it has several.
        column: Of the dataset: the one with the text.
        joined: Whether the dataset's rows are the lines of one document; else each is one.
        streaming: Whether a dataset is read over the network, time and again, instead of being downloaded.

    Raises:
        ConfigError: If both `files` and `dataset` are given.
        DataError: If there is nothing to read, or it cannot be read.
    """
    if files is not None and dataset is not None:
        raise ConfigError(f"data.files={files} and data.dataset={dataset} exclude each other: set one of them to null.")
    if files is not None:
        paths = [path for entry in ([files] if isinstance(files, str) else files) for path in expand_pattern(entry)]
        if not paths:
            raise DataError("data.files=[] names no file: give a path or a pattern, or null for Python's own prose.")
        return {"train": in_files(paths, "data.files")}
    if dataset is None:
        return {"train": in_memory(prose())}
    path = Path(dataset).expanduser()
    texts = _text_files(path) if path.is_dir() else {}
    if "train" in texts:
        return {split: in_files(paths, "data.dataset") for split, paths in texts.items()}
    splits = load_dataset_splits(dataset, config, offline=OFFLINE, streaming=streaming)
    for rows in splits.values():
        check_columns(dataset, rows.column_names or list(next(iter(rows), {})), {"column": column})
    return {split: _rows(part, dataset, column, joined) for split, part in splits.items()}


def expand_pattern(entry: str) -> list[Path]:
    """The files of a path or a glob pattern, those of a pattern by name.

    Raises:
        DataError: If there is none.
    """
    path = Path(entry).expanduser()
    if path.is_file():
        return [path]
    if glob.has_magic(entry):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"data.files={entry} matches no file below {Path.cwd()}: correct the pattern.")
        return found
    reason = "is a directory: add a pattern such as /*.txt" if path.is_dir() else "does not exist: correct the path"
    raise DataError(f"data.files={entry} {reason} (seen from {Path.cwd()}).")


def _text_files(path: Path) -> dict[str, list[Path]]:
    """The text files of a directory by the split that their names tell."""
    found: dict[str, list[Path]] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in TEXT_FILES and not p.name.startswith(".")):
        words = file.stem.lower().replace("-", ".").replace("_", ".").split(".")
        for split, names in NAMES.items():
            if not {*names}.isdisjoint(words):
                found.setdefault(split, []).append(file)
    return found


@rereadable
def _rows(split: "Dataset | IterableDataset", name: str, column: str, joined: bool) -> Iterator[Piece]:
    """The rows of one column: the lines of one document, or each a document, of which empty ones are left out."""
    texts = _texts(split.select_columns([column]), name, column)
    if joined:
        # In portions: a piece is searched for its end whenever more comes.
        yield from document("".join(map(_line, portion)) for portion in texts)
    else:
        for portion in texts:
            for text in portion:
                yield from document([text])


def _texts(split: "Dataset | IterableDataset", name: str, column: str) -> Iterator[list[str]]:
    try:
        for rows in split.iter(ROWS):
            texts = [text for text in rows[column] if text is not None]
            if not all(isinstance(text, str) for text in texts):
                raise DataError(f"data.column={column} of data.dataset={name} holds no text: choose another column.")
            yield texts
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data.dataset={name} breaks off ({first_line(error)}): start again.") from error


def _line(text: str) -> str:
    text = unmarked(text)  # which any of a dataset's files may begin with
    return text if text.endswith("\n") else text + "\n"

"""Text sources: files, a dataset on disk or the hub, or Python's own prose."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xformer.data.sources.documents import Documents, Piece, document, in_files, in_memory
from xformer.data.sources.hub import NAMES, DatasetSource, first_line, load_dataset_splits
from xformer.data.sources.prose import prose
from xformer.errors import DataError
from xformer.tokenizers.pieces import rereadable
from xformer.tokenizers.utf8 import unmarked

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

OFFLINE = "data.source.dataset=null, which reads the prose that Python ships"
ROWS = 1000
# Files of text in a directory, such as wiki.train.raw: a split each.
TEXT_FILES = {".txt", ".raw", ".tokens"}


@dataclass(frozen=True, kw_only=True)
class TextSource(DatasetSource):
    """Settings of a text source; by default (no `files` or `dataset`) Python's own prose."""

    files: str | list[str] | None  # a path, a glob pattern, or several of either; one document each
    column: str  # of the dataset: the one with the text
    joined: bool  # whether the dataset's rows are the lines of one document; else each is one
    # whether a dataset of the hub is read over the network instead of being downloaded first. It is read three times:
    # to know its length and content, to train the tokenizer, and to tokenise.
    streaming: bool


def read_documents(source: TextSource) -> dict[str, Documents]:
    """Find the documents by split; a source without splits is the split "train".

    They are read when they are iterated, a piece at a time, and what is wrong inside them is said then. A directory of
    text files that `dataset` names has a document for each split.

    Raises:
        DataError: If there is nothing to read, or it cannot be read.
    """
    files, dataset = source.files, source.dataset
    if files is not None:
        paths = expand_patterns(files, "use a path or a pattern, or null for Python's own prose")
        return {"train": in_files(paths, "data.source.files")}
    if dataset is None:
        return {"train": in_memory(prose())}
    path = Path(dataset).expanduser()
    texts = _text_files(path) if path.is_dir() else {}
    if "train" in texts:
        return {split: in_files(paths, "data.source.dataset") for split, paths in texts.items()}
    splits = load_dataset_splits(source, {"column": source.column}, offline=OFFLINE, streaming=source.streaming)
    return {split: _rows(part, dataset, source.column, source.joined) for split, part in splits.items()}


def expand_patterns(entries: str | list[str], advice: str) -> list[Path]:
    """The files of paths or glob patterns, in order.

    Raises:
        DataError: no file matches; the message ends with the advice where there is no entry at all.
    """
    if not entries:
        raise DataError(f"data.source.files=[] names no file: {advice}.")
    return [path for entry in ([entries] if isinstance(entries, str) else entries) for path in expand_pattern(entry)]


def expand_pattern(entry: str) -> list[Path]:
    """The files of a path or a glob pattern, sorted by name.

    Raises:
        DataError: If no file matches.
    """
    path = Path(entry).expanduser()
    if path.is_file():
        return [path]
    if glob.has_magic(entry):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"data.source.files={entry} matches no file below {Path.cwd()}: correct the pattern.")
        return found
    reason = "is a directory: add a pattern such as /*.txt" if path.is_dir() else "does not exist: correct the path"
    raise DataError(f"data.source.files={entry} {reason} (seen from {Path.cwd()}).")


def _text_files(path: Path) -> dict[str, list[Path]]:
    """The text files of a directory, by the split in their names."""
    found: dict[str, list[Path]] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in TEXT_FILES and not p.name.startswith(".")):
        words = file.stem.lower().replace("-", ".").replace("_", ".").split(".")
        for split, names in NAMES.items():
            if not {*names}.isdisjoint(words):
                found.setdefault(split, []).append(file)
    return found


@rereadable
def _rows(split: "Dataset | IterableDataset", name: str, column: str, joined: bool) -> Iterator[Piece]:
    """The rows of one column: lines of one document, or one document each, without empty ones."""
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
                raise DataError(
                    f"data.source.column={column} of data.source.dataset={name} holds no text: choose another column."
                )
            yield texts
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data.source.dataset={name} ended early ({first_line(error)}): run again.") from error


def _line(text: str) -> str:
    text = unmarked(text)  # which any of a dataset's files may begin with
    return text if text.endswith("\n") else text + "\n"

"""Where text comes from: files, a dataset on disk or on the hub, or the prose that every Python ships."""

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.data.sources.documents import Documents, Files, Piece, Texts, document
from xformer.data.sources.prose import prose
from xformer.errors import ConfigError, DataError
from xformer.tokenizers.utf8 import unmarked

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

logger = logging.getLogger(__name__)

OFFLINE = "data.dataset=null, which reads the prose that Python ships"
NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
SECONDS_TO_ANSWER = 5.0
ROWS = 1000
# Files of text in a directory, such as wiki.train.raw: a split each.
TEXT_FILES = {".txt", ".raw", ".tokens"}


def read(
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
        return {"train": read_files(files)}
    if dataset is not None:
        return read_dataset(dataset, config, column, joined=joined, streaming=streaming)
    return {"train": Texts(prose())}


def read_files(files: str | list[str]) -> Documents:
    """Find files, in the order given, those of one pattern by name.

    Raises:
        DataError: If a file is missing, or a pattern matches none.
    """
    paths = [path for entry in ([files] if isinstance(files, str) else files) for path in expand(entry)]
    if not paths:
        raise DataError("data.files=[] names no file: give a path or a pattern, or null for Python's own prose.")
    return Files(paths, "data.files")


def expand(entry: str) -> list[Path]:
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


def read_dataset(
    name: str, config: str | None, column: str, *, joined: bool = False, streaming: bool = False
) -> dict[str, Documents]:
    """Find a dataset's text by split: a local directory if there is one, else the hub.

    Raises:
        DataError: If it is neither here nor reachable, or lacks the column.
    """
    path = Path(name).expanduser()
    texts = _text_files(path) if path.is_dir() else {}
    if "train" in texts:
        return {split: Files(paths, "data.dataset") for split, paths in texts.items()}
    splits = load_dataset_splits(name, config, offline=OFFLINE, streaming=streaming)
    return {split: Rows(part, name, column, joined) for split, part in splits.items()}


def _text_files(path: Path) -> dict[str, list[Path]]:
    """The text files of a directory by the split that their names tell."""
    found: dict[str, list[Path]] = {}
    for file in sorted(p for p in path.iterdir() if p.suffix.lower() in TEXT_FILES and not p.name.startswith(".")):
        words = file.stem.lower().replace("-", ".").replace("_", ".").split(".")
        for split, names in NAMES.items():
            if not {*names}.isdisjoint(words):
                found.setdefault(split, []).append(file)
    return found


def load_dataset_splits(name: str, config: str | None, *, offline: str, streaming: bool = False) -> dict[str, Any]:
    """A dataset's splits as "train", "val" and "test": a local directory if there is one, else the hub.

    Args:
        name: of the directory, or on the hub.
        config: of the dataset, where it has several.
        offline: data of this kind that need no network, to offer where there is none.
        streaming: whether it is read over the network, time and again, instead of being downloaded.

    Raises:
        DataError: If it is neither here nor reachable, or has no training split.
    """
    path = Path(name).expanduser()
    loaded = _load_local(path, config, streaming) if path.exists() else _load(name, config, offline, streaming)
    found: dict[str, Any] = {}
    for split, names in NAMES.items():
        own = next((own for own in names if own in loaded), None)
        if own is not None:
            found[split] = loaded[own]
    if "train" not in found:
        raise DataError(f"data.dataset={name} has no split train, only {', '.join(loaded)}: choose another dataset.")
    return found


class Rows:
    """One column of a dataset that lies on disk or comes over the network.

    Args:
        split: the rows.
        name: of the dataset, for the errors.
        column: the one with the text.
        joined: whether the rows are the lines of one document; else each is one, and empty ones are left out.

    Raises:
        DataError: there is no such column; on iterating, it holds no text, or reading breaks off.
    """

    def __init__(self, split: "Dataset | IterableDataset", name: str, column: str, joined: bool) -> None:
        columns = split.column_names or list(next(iter(split), {}))
        if column not in columns:
            raise DataError(
                f"data.column={column} is not in data.dataset={name}: its columns are {', '.join(columns)}."
            )
        self.split, self.name, self.column, self.joined = split.select_columns([column]), name, column, joined

    def __iter__(self) -> Iterator[Piece]:
        if self.joined:
            yield from document(self._texts())
        else:
            for text in self._texts():
                yield from document([text])

    def _texts(self) -> Iterator[str]:
        try:
            for rows in self.split.iter(ROWS):
                texts = [text for text in rows[self.column] if text is not None]
                if not all(isinstance(text, str) for text in texts):
                    raise DataError(
                        f"data.column={self.column} of data.dataset={self.name} holds no text: choose another column."
                    )
                # In portions: a piece is searched for its end whenever more comes.
                yield from ["".join(map(_line, texts))] if self.joined else texts
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"data.dataset={self.name} breaks off ({_first(error)}): start again.") from error


def _line(text: str) -> str:
    text = unmarked(text)  # which any of a dataset's files may begin with
    return text if text.endswith("\n") else text + "\n"


def _load_local(path: Path, config: str | None, streaming: bool) -> "DatasetDict | IterableDatasetDict":
    from datasets import DatasetDict, IterableDatasetDict, get_dataset_config_names, load_dataset, load_from_disk

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        if not saved and config not in get_dataset_config_names(str(path)):
            config = None  # a preset names the hub's; a directory of files has none
        loaded: Any = load_from_disk(str(path)) if saved else load_dataset(str(path), config, streaming=streaming)
    except Exception as error:
        raise DataError(f"data.dataset={path} cannot be read as a dataset ({_first(error)}): correct it.") from error
    return loaded if isinstance(loaded, DatasetDict | IterableDatasetDict) else DatasetDict(train=loaded)


def _load(name: str, config: str | None, offline: str, streaming: bool) -> "DatasetDict | IterableDatasetDict":
    from datasets import load_dataset

    variable = os.environ.get("HF_HUB_OFFLINE", "unset")
    reachable = _answers(name)
    try:
        with _offline(not reachable):
            loaded: DatasetDict | IterableDatasetDict = load_dataset(name, config, streaming=streaming)
            return loaded
    except Exception as error:
        if reachable and not isinstance(error, ConnectionError):
            raise DataError(
                f"data.dataset={name} with data.dataset_config={config} cannot be loaded ({_first(error)}): "
                "correct the name or the config."
            ) from error
        raise DataError(
            f"data.dataset={name} with data.dataset_config={config} is no directory here, is not in the local cache "
            f"and the hub cannot be reached (HF_HUB_OFFLINE={variable}): fetch it where "
            f"there is a network and point HF_HOME to that cache, or use {offline}."
        ) from error


def _answers(name: str) -> bool:
    """Ask the hub once: loading would retry a dead network for half a minute."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=SECONDS_TO_ANSWER)
    except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError):
        # An answer, if a bad one: loading then says what is wrong with the name.
        return True
    except Exception as error:
        logger.warning("The hub does not answer (%s): looking for %s in the local cache.", type(error).__name__, name)
        return False
    return True


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Make the hub's libraries fail at once, as HF_HUB_OFFLINE=1 would had it been set before they were imported."""
    import datasets.config
    import huggingface_hub.constants

    modules = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value or offline
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

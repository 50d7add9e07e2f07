"""Where text comes from: files, a dataset on disk or on the hub, or the prose that every Python ships."""

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xformer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

Documents = list[str]
OFFLINE = "data.dataset=null, which reads the prose that Python ships"
NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
SECONDS_TO_ANSWER = 5.0


def read(files: str | list[str] | None, dataset: str | None, config: str | None, column: str) -> dict[str, Documents]:
    """Read the documents, by split where the source has splits and under "train" alone where it has not.

    Args:
        files: A path, a glob pattern, or several of either; one document each.
        dataset: A local directory, or a name on the hub.
        config: Of the dataset, where it has several.
        column: Of the dataset: the one with the text.

    Raises:
        ConfigError: If both `files` and `dataset` are given.
        DataError: If there is nothing to read, or it cannot be read.
    """
    if files is not None and dataset is not None:
        raise ConfigError(f"data.files={files} and data.dataset={dataset} exclude each other: set one of them to null.")
    if files is not None:
        return {"train": read_files(files)}
    if dataset is not None:
        return read_dataset(dataset, config, column)
    from pydoc_data.topics import topics

    return {"train": [topics[name] for name in sorted(topics)]}


def read_files(files: str | list[str]) -> Documents:
    """Read files as UTF-8, in the order given, those of one pattern by name.

    Raises:
        DataError: If a file is missing, empty or not UTF-8, or a pattern matches none.
    """
    paths = [path for entry in ([files] if isinstance(files, str) else files) for path in _expand(entry)]
    if not paths:
        raise DataError("data.files=[] names no file: give a path or a pattern, or null for Python's own prose.")
    return [_read_file(path) for path in paths]


def _expand(entry: str) -> list[Path]:
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


def _read_file(path: Path) -> str:
    try:
        # newline="" keeps the file's own line ends: the text is what the bytes say.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"data.files={path} is not UTF-8 at byte {error.start:,}: convert the file.") from error
    except OSError as error:
        raise DataError(f"data.files={path} cannot be read ({error.strerror}): make it readable.") from error
    if not text:
        raise DataError(f"data.files={path} is empty: give a file with text.")
    return text


def read_dataset(name: str, config: str | None, column: str) -> dict[str, Documents]:
    """Read a dataset's text by split: a local directory if there is one, else the hub.

    Raises:
        DataError: If it is neither here nor reachable, or lacks the column.
    """
    return {split: _column(part, name, column) for split, part in load_dataset_splits(name, config).items()}


def load_dataset_splits(name: str, config: str | None) -> "dict[str, Dataset]":
    """A dataset's splits as "train", "val" and "test": a local directory if there is one, else the hub.

    Raises:
        DataError: If it is neither here nor reachable, or has no training split.
    """
    loaded = _load_local(Path(name).expanduser(), config) if Path(name).expanduser().exists() else _load(name, config)
    found: dict[str, Dataset] = {}
    for split, names in NAMES.items():
        own = next((own for own in names if own in loaded), None)
        if own is not None:
            found[split] = loaded[own]
    if "train" not in found:
        raise DataError(f"data.dataset={name} has no split train, only {', '.join(loaded)}: choose another dataset.")
    return found


def _column(split: "Dataset", name: str, column: str) -> Documents:
    if column not in split.column_names:
        raise DataError(
            f"data.column={column} is not in data.dataset={name}: its columns are {', '.join(split.column_names)}."
        )
    documents = [text for text in split[column][:] if text]
    if not all(isinstance(text, str) for text in documents):
        raise DataError(f"data.column={column} of data.dataset={name} holds no text: choose another column.")
    return documents


def _load_local(path: Path, config: str | None) -> "DatasetDict":
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        loaded: Any = load_from_disk(str(path)) if saved else load_dataset(str(path), config)
    except Exception as error:
        raise DataError(f"data.dataset={path} cannot be read as a dataset ({_first(error)}): correct it.") from error
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict(train=loaded)


def _load(name: str, config: str | None) -> "DatasetDict":
    from datasets import load_dataset

    variable = os.environ.get("HF_HUB_OFFLINE", "unset")
    reachable = _answers(name)
    try:
        with _offline(not reachable):
            loaded: DatasetDict = load_dataset(name, config)
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
            f"there is a network and point HF_HOME to that cache, or use {OFFLINE}."
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

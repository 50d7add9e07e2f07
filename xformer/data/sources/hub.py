"""Loading datasets of the `datasets` library, from a directory or the hub; fails at once without a network."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from xformer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import DatasetDict, IterableDatasetDict

logger = logging.getLogger(__name__)

NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""What datasets call each split."""
SECONDS_TO_ANSWER = 5.0
_LISTED = 12
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Settings of a data source: a dataset of the `datasets` library, or what a subclass adds.

    Raises:
        ConfigError: several places are given.
    """

    source_keys: ClassVar[tuple[str, ...]] = ("files", "dataset")
    """The fields of which at most one is set."""

    dataset: str | None  # a local dataset directory, or a name on the hub
    dataset_config: str | None  # of the dataset, where it has several

    def __post_init__(self) -> None:
        found = [f"data.source.{key}={place}" for key in self.source_keys if (place := getattr(self, key)) is not None]
        if len(found) > 1:
            raise ConfigError(f"{' and '.join(found)} cannot be combined: set all but one to null.")

    @property
    def place(self) -> str | None:
        """The configured source, for messages; None if none is set."""
        return next((str(place) for key in self.source_keys if (place := getattr(self, key)) is not None), None)


def split_names(there: Collection[str]) -> dict[str, str]:
    """The name that each split has among those there."""
    found = {split: [name for name in names if name in there] for split, names in NAMES.items()}
    return {split: names[0] for split, names in found.items() if names}


def listed(names: Iterable[str]) -> str:
    """The first names, to be read in a message."""
    short = [name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..." for name in names]
    return ", ".join([*short[:_LISTED], *(["..."] if len(short) > _LISTED else [])])


def load_dataset_splits(
    source: DatasetSource, columns: Mapping[str, str], *, offline: str, streaming: bool = False
) -> dict[str, Any]:
    """Load a dataset's splits as "train", "val" and "test": from a local directory if it exists, else the hub.

    Args:
        source: with a dataset.
        columns: a key of the configuration, and the column it names; a nested one with a dot.
        offline: data of this kind that need no network, to offer where there is none.
        streaming: whether it is read over the network, time and again, instead of being downloaded.

    Raises:
        DataError: the dataset is neither on disk nor reachable, or has no training split, or lacks a column.
    """
    name, config = str(source.dataset), source.dataset_config
    path = Path(name).expanduser()
    loaded = _load_local(path, config, streaming) if path.exists() else _load(name, config, offline, streaming)
    if "train" not in (names := split_names(loaded)):
        raise DataError(
            f"data.source.dataset={name} has no split train, only {', '.join(loaded)}: choose another dataset."
        )
    found = {split: loaded[name] for split, name in names.items()}
    if any("." in column for column in columns.values()):
        found = {split: part.flatten() for split, part in found.items()}
    for part in found.values():
        there = part.column_names or list(next(iter(part), {}))
        for key, column in columns.items():
            if column not in there:
                raise DataError(
                    f"data.source.{key}={column} is not in data.source.dataset={name}: its columns are {listed(there)}."
                )
    return found


def first_line(error: Exception) -> str:
    """The message of an error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _load_local(path: Path, config: str | None, streaming: bool) -> "DatasetDict | IterableDatasetDict":
    from datasets import DatasetDict, IterableDatasetDict, get_dataset_config_names, load_dataset, load_from_disk

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        if not saved and config not in get_dataset_config_names(str(path)):
            config = None  # a preset names the hub's; a directory of files has none
        loaded: Any = load_from_disk(str(path)) if saved else load_dataset(str(path), config, streaming=streaming)
    except Exception as error:
        reason = first_line(error)
        raise DataError(f"data.source.dataset={path} cannot be read as a dataset ({reason}): correct it.") from error
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
                f"data.source.dataset={name} with data.source.dataset_config={config} cannot be loaded "
                f"({first_line(error)}): correct the name or the config."
            ) from error
        raise DataError(
            f"data.source.dataset={name} with data.source.dataset_config={config} is not a directory here, is not in "
            f"the local cache and the hub cannot be reached (HF_HUB_OFFLINE={variable}): fetch it where there is a "
            f"network and point HF_HOME to that cache, or use {offline}."
        ) from error


def _answers(name: str) -> bool:
    """Whether the hub answers one request, as loading would retry without a network for half a minute."""
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
    """Make the hub's libraries fail at once, as if HF_HUB_OFFLINE=1 had been set before their import."""
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

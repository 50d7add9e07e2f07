"""Renamed configuration keys: the table by which configurations stored under old names still open.

Run directories, committed tables and logged runs are read through this table; an error for an old key names the new
one. Keys of current options are not old keys. A key stands for all keys below it: `task.mixup` for `task.mixup.alpha`.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from xformer.config.groups import load_option, option_file

MOVED: dict[str, str] = {
    **{f"data.{key}": f"data.loader.{key}" for key in ("batch_size", "tokens_per_batch", "num_workers")},
    "data.val_fraction": "data.split.val_fraction",
    "data.validation_fraction": "data.split.val_fraction",
    "data.test_fraction": "data.split.test_fraction",
    "data.split_seed": "data.split.seed",
    **{f"data.{key}": f"data.generation.{key}" for key in ("train_size", "val_size", "test_size", "fresh")},
    "data.generation_seed": "data.generation.seed",
    **{
        f"data.{key}": f"data.source.{key}"
        for key in (
            "files", "source_files", "target_files", "folder", "dataset", "dataset_config", "column_names", "column",
            "text_column", "label_column", "first_column", "second_column", "source_column", "target_column",
            "image_column", "joined", "streaming",
        )
    },
    **{f"data.paddle_{key}": f"data.paddle.{key}" for key in ("length", "thickness", "margin")},
    "data.contrast": "data.paddle.contrast",
    "data.contour_length": "data.contours.length",
    **{
        f"data.{key}": f"data.contours.{key}"
        for key in ("distractor_length", "distractors", "continuity", "seed_distance")
    },
    **{f"task.{key}": f"task.masking.{key}" for key in ("rate", "hidden", "random", "seed")},
    **{f"task.{key}": f"task.augmentation.{key}" for key in ("rand_augment", "mixup")},
}  # fmt: skip
"""The old and the current key."""


@functools.cache
def _moves(data: str | None, task: str | None) -> dict[str, str]:
    """The renames, without those old keys that a chosen option uses today for something else."""
    there = set()
    for group, option in (("data", data), ("task", task)):
        if option is not None and option_file(group, option) is not None:
            node = load_option(group, option)
            there |= {f"{group}.{key}" for key in node.get(group, node)}
    return {old: new for old, new in MOVED.items() if old not in there}


def new_key(key: str, choices: Mapping[str, Any]) -> str:
    """The current name of a key.

    Args:
        key: a configuration key, such as `data.batch_size`.
        choices: group to option.
    """
    moves, parts = _moves(choices.get("data"), choices.get("task")), key.split(".")
    old = next((old for size in range(1, len(parts) + 1) if (old := ".".join(parts[:size])) in moves), None)
    return key if old is None else moves[old] + key.removeprefix(old)


def new_settings(settings: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings with the keys' current names."""
    return {new_key(key, choices): value for key, value in settings.items()}


def new_overrides(overrides: Iterable[str], choices: Mapping[str, Any]) -> list[str]:
    """Overrides with the keys' current names: `+data.batch_size=8` becomes `+data.loader.batch_size=8`."""
    found = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+~")
        found.append(f"{key.removesuffix(name)}{new_key(name, choices)}{equals}{value}")
    return found


def new_config(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with the keys' current names."""
    found = {key: dict(node) if isinstance(node, Mapping) else node for key, node in config.items()}
    for old, new in _moves(choices.get("data"), choices.get("task")).items():
        (group, key), (_, block, name) = old.split("."), new.split(".")
        node = found.get(group)
        if isinstance(node, dict) and key in node:
            node[block] = {**node.get(block, {}), name: node.pop(key)}
    return found


def first_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings under the keys' original names, so that a configuration's hash never changes."""
    first = {new: old for old, new in MOVED.items()}

    def first_key(key: str) -> str:
        new = next((new for new in first if key == new or key.startswith(f"{new}.")), None)
        return key if new is None else first[new] + key.removeprefix(new)

    return {first_key(key): value for key, value in settings.items()}

"""A configuration as flat settings, `attention.rank` -> 16, without what cannot change a result."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]

Value: TypeAlias = str | int | float | bool | None

_NO_RESULT = {  # how a run is started, watched and stored; the seed is the repetition
    "seed", "threads", "cache", "resume", "skip_finished", "on_incompatible", "study", "logger", "experiment", "debug",
    "hydra", "callbacks.progress", "callbacks.throughput", "callbacks.last_checkpoint", "callbacks.save_on_interrupt",
    "callbacks.approximation_error", "callbacks.attention_entropy", "callbacks.effective_context",
    "callbacks.gradient_norm", "callbacks.learning_rate", "callbacks.checkpoint.dirpath", "data.num_workers",
    "callbacks.checkpoint.enable_version_counter",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.profiler",
}  # fmt: skip
_NOT_WHERE_NULL = {"init_from"}  # runs from before there was such a key did what null does
_NO_CHOICE = {"callbacks"}  # Hydra keeps no choice of several options; the keys below it tell what was chosen
_INSTANTIATE = {"_partial_", "_convert_", "_recursive_"}


def of_config(config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Value]:
    """The settings of a resolved configuration: the option of each group, and every key below.

    A node that repeats a group of the top, as `architecture.size` repeats `size`, is left out. A dimension that `match`
    adjusted stands as it was asked for: the adjusted one follows from the rest.
    """
    nodes = {key: node for key, node in config.items() if isinstance(node, Mapping)}
    own = {
        key: {name: child for name, child in node.items() if not (name in nodes and child == nodes[name])}
        for key, node in nodes.items()
    }
    flat = _flat({**config, **own})
    if flat.get("match.was") is not None:
        flat |= {str(flat.get("match.by")): flat["match.was"], "match.was": None}
    return relevant({**choices, **flat})


def of_overrides(choices: Mapping[str, str], overrides: Iterable[str]) -> dict[str, Value]:
    """What is known of a run that was refused before its configuration was written."""
    typed = (override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    return relevant({key.partition("@")[2] or key: _read(text) for key, text in typed} | {**choices})


def started_from(settings: Mapping[str, Value], inherited: Mapping[str, Any] | None) -> dict[str, Value]:
    """The settings with `init_from` as what the other run was instead of where it lies.

    So runs of several seeds that each start from their own seed's run are one group.

    Args:
        settings: of the run that started from another.
        inherited: what its summary says of that; None where it says nothing.
    """
    if settings.get("init_from") is None:
        return dict(settings)
    return {**settings, "init_from": _plain((inherited or {}).get("source") or "another run")}


def short(settings: Mapping[str, Value]) -> str:
    """A configuration in a word, `full-3fa2c1d0`: its attention and a hash of everything."""
    digest = hashlib.sha256(json.dumps(sorted(settings.items())).encode()).hexdigest()[:8]
    return f"{settings.get('attention', 'run')}-{digest}"


def key_of(override: str) -> str:
    """What an override sets: `attention` of `+attention=full`, and the slot of `attention@cross_attention=full`."""
    key = override.lstrip("+~").partition("=")[0]
    return key.partition("@")[2] or key


def replayed(overrides: Iterable[str]) -> list[str]:
    """The overrides that make a run what it is: not where it is stored, how it is watched or from where it goes on."""
    dropped = _NO_RESULT - {"seed", "experiment", "debug", "on_incompatible"}
    keys = [(override.lstrip("+~").partition("=")[0], override) for override in overrides]
    return [override for key, override in keys if not {*_prefixes(key)} & dropped]


def text(value: Value) -> str:
    """A value as the command line spells it."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def relevant(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Without what cannot change a result; also for settings written by a version that kept more."""
    kept = (key for key in settings if key not in _NO_CHOICE and not {*_prefixes(key)} & _NO_RESULT)
    found = {key: settings[key] for key in kept}
    return {key: value for key, value in found.items() if value is not None or key not in _NOT_WHERE_NULL}


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:size]) for size in range(1, len(parts) + 1)]


def _flat(node: Mapping[str, Any], path: str = "") -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in node.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif key not in _INSTANTIATE:
            found[name] = _plain(value)
    return found


def _read(text: str) -> Value:
    try:
        return _plain(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError):  # `*.txt` would be an alias, 2020-13-01 a date
        return text


def _plain(value: Any) -> Value:
    return value if isinstance(value, str | int | float | bool | None) else str(value)

"""The identity of a configuration: flat settings, `attention.rank` -> 16, without what cannot change a result.

A part is identified by its option, `attention` -> linformer, not by the class behind it, so classes and modules may
move without changing the identity of a configuration. If a `_target_` was typed in place of the option's, it identifies
the part.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]

from xformer.config.layer_names import shown_choice
from xformer.config.moved import first_settings

Value: TypeAlias = str | int | float | bool | None

_NO_RESULT = {  # how a run is started, watched and stored; the seed is the repetition
    "seed", "threads", "cache", "resume", "skip_finished", "on_incompatible", "study", "logger", "experiment", "debug",
    "hydra", "data.loader.num_workers",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.profiler",
}  # fmt: skip
_UNDECLARED = {  # callback settings without effect in runs from before callbacks declared them; a closed list
    "callbacks.progress", "callbacks.throughput", "callbacks.last_checkpoint", "callbacks.save_on_interrupt",
    "callbacks.approximation_error", "callbacks.attention_entropy", "callbacks.effective_context",
    "callbacks.gradient_norm", "callbacks.learning_rate", "callbacks.checkpoint.dirpath",
    "callbacks.checkpoint.enable_version_counter",
}  # fmt: skip
_NOT_WHERE_NULL = {"init_from"}  # runs from before the key existed behaved as null
_NO_CHOICE = {"callbacks"}  # Hydra records no choice for several options; the keys below it identify them
_FOLLOWS_SEED = "task.masking.seed"  # omitted if equal to the seed, which only distinguishes repetitions
_INSTANTIATE = {"_partial_", "_convert_", "_recursive_"}
_TARGET = "._target_"


def settings_of_config(
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    target_overrides: Mapping[str, str] | None = None,
    ignored_keys: Iterable[str] | None = None,
) -> dict[str, Value]:
    """The flat settings of a resolved configuration: the option of each group, and every key below it.

    Args:
        config: the configuration.
        choices: group to option.
        target_overrides: by key, the `_target_`s that replace an option's own.
        ignored_keys: keys that cannot change the result, as the run's callbacks declare; None if not recorded.
    """
    return without_ignored_keys(
        {**choices, **with_option_names(flatten(config), choices, target_overrides or {})}, ignored_keys
    )


def flatten(config: Mapping[str, Any]) -> dict[str, Value]:
    """Flatten a resolved configuration to dotted keys, `_target_`s included.

    A node that repeats a top-level group, as `architecture.size` repeats `size`, is omitted. A dimension that `match`
    adjusted has its value before the adjustment, because the adjusted value follows from the rest.
    """
    nodes = {key: node for key, node in config.items() if isinstance(node, Mapping)}
    saved = {
        key: {name: child for name, child in node.items() if not (name in nodes and child == nodes[name])}
        for key, node in nodes.items()
    }
    found = _flat({**config, **saved})
    if _FOLLOWS_SEED in found and found[_FOLLOWS_SEED] == found.get("seed"):
        del found[_FOLLOWS_SEED]
    if found.get("match.was") is not None:
        found |= {str(found.get("match.by")): found["match.was"], "match.was": None}
    return found


def with_option_names(
    settings: Mapping[str, Value], choices: Mapping[str, str], target_overrides: Mapping[str, str]
) -> dict[str, Value]:
    """Settings in which each part is its option's name (or the target typed in its place), not a class.

    A part without a group, such as a callback, is named by its key.
    """
    found: dict[str, Value] = {}
    for key, value in settings.items():
        part = key.removesuffix(_TARGET)
        if part == key:
            found[key] = value
        elif part in target_overrides:
            found[part] = target_overrides[part]
        elif part not in choices:
            found[part] = part.rpartition(".")[2]
    return found


def targets(config: Mapping[str, Any]) -> dict[str, str]:
    """The key of each part of a configuration, or of flat settings, and its `_target_`."""
    return {key.removesuffix(_TARGET): str(value) for key, value in _flat(config).items() if key.endswith(_TARGET)}


def settings_of_overrides(choices: Mapping[str, str], overrides: Iterable[str]) -> dict[str, Value]:
    """The settings of a run that was refused before its configuration was written, from its overrides."""
    typed = [
        override.lstrip("+~").split("=", 1) for override in overrides if "=" in override and changes_result(override)
    ]
    return without_ignored_keys({key.partition("@")[2] or key: _read(text) for key, text in typed} | {**choices})


def with_warm_start_source(settings: Mapping[str, Value], warm_start: Mapping[str, Any] | None) -> dict[str, Value]:
    """The settings with `init_from` replaced by the other run's settings instead of its path.

    So runs of several seeds, each started from the run of its seed, form one group.

    Args:
        settings: the settings of the run that started from another.
        warm_start: the warm start in its summary; None without one.
    """
    if settings.get("init_from") is None:
        return dict(settings)
    return {**settings, "init_from": _plain((warm_start or {}).get("source") or "another run")}


def short_name(settings: Mapping[str, Value]) -> str:
    """A short name for a configuration, such as `full-3fa2c1d0`: its attention and a hash of all settings."""
    digest = hashlib.sha256(json.dumps(sorted(first_settings(settings).items())).encode()).hexdigest()[:8]
    return f"{shown_choice(settings, 'attention') if 'attention' in settings else 'run'}-{digest}"


def key_of(override: str) -> str:
    """The key that an override sets: `attention` for `+attention=full`, the slot for `attention@SLOT=full`."""
    key = override.lstrip("+~").partition("=")[0]
    return key.partition("@")[2] or key


def reproducing_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides that decide a run's result, without those on storage, logging, progress and resumption."""
    kept = {"seed", "experiment", "debug", "on_incompatible"}
    return [o for o in overrides if o.lstrip("+~").partition("=")[0].partition(".")[0] in kept or changes_result(o)]


def changes_result(override: str) -> bool:
    """Whether an override can change a run's result; for a callback, its class declares that."""
    key = override.lstrip("+~").partition("=")[0]
    dropped = _NO_RESULT
    if key.startswith("callbacks."):
        from xformer.config.ignored_keys import (
            option_ignored_keys,  # which asks the classes, and takes seconds to import them
        )

        dropped = dropped | option_ignored_keys()
    return not {*_prefixes(key)} & dropped


def override_value(value: Value) -> str:
    """A value in command-line form."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_ignored_keys(settings: Mapping[str, Value], ignored_keys: Iterable[str] | None = None) -> dict[str, Value]:
    """Remove settings that cannot change a result, including those that earlier versions recorded.

    Args:
        settings: flat settings.
        ignored_keys: keys that the run's callbacks declare; None if not recorded.
    """
    dropped = _NO_RESULT.union(_UNDECLARED if ignored_keys is None else ignored_keys)
    kept = (key for key in settings if key not in _NO_CHOICE and not {*_prefixes(key)} & dropped)
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

"""The class behind each option of a stored configuration: where it lives now, and which targets replace it.

A stored configuration has the `_target_`s of its time, but its meaning is the chosen options, whose classes may have
moved since. So a stored `_target_` is replaced by the current one of the option's file, unless it was typed in place of
the option's.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig, OmegaConf

from xformer.config.groups import callback_options, load_option, option_file, slots
from xformer.config.identity import targets
from xformer.config.moved import new_config
from xformer.config.plugins import Plugin, allowed_prefixes, cached_by_plugins, plugins

_NO_PART = ("callbacks", "logger", "experiment", "debug")
"""Groups whose options are not a single part with a class: several may be chosen, or they set keys of other groups."""


@runtime_checkable
class RecordedChoices(Protocol):
    """The part of a run's summary about its configuration: a protocol for `xformer.runs.summary.Summary`."""

    choices: dict[str, str]
    overrides: list[str]
    target_overrides: dict[str, str]
    ignored_keys: list[str] | None


def target_at(key: str, choices: Mapping[str, str]) -> str | None:
    """The `_target_` of the part that the chosen options have at a key; None where they have none.

    Args:
        key: the key of a part, such as `attention`, `architecture.attention` or `callbacks.progress`.
        choices: group, or slot, to option.
    """
    chosen = () if key.startswith("callbacks.") else tuple(sorted(choices.items()))  # which they do not depend on
    found = OmegaConf.select(_composed(chosen), f"{key}._target_", throw_on_resolution_failure=False)
    return None if found is None else str(found)


@cached_by_plugins
def _composed(choices: tuple[tuple[str, str], ...]) -> DictConfig:
    found: dict[str, Any] = {"callbacks": callback_options()}
    for key, option in choices:
        group = slots().get(key, key)
        if group not in _NO_PART and option_file(group, option) is not None:
            node = load_option(group, option)
            found[key] = node.get(group, node)
    return OmegaConf.create(found)


def replaced_targets(config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, str]:
    """The `_target_`s in a newly composed configuration that replace their option's own, by key."""
    return {key: target for key, target in targets(config).items() if target != target_at(key, choices)}


def used_plugins(config: Mapping[str, Any], choices: Mapping[str, str]) -> list[Plugin]:
    """The plugins whose options or classes a configuration uses."""
    chosen = [*((slots().get(key, key), option) for key, option in choices.items()), *_listed(config)]
    files = [file for group, option in chosen if (file := option_file(group, option))]
    named = targets(config).values()
    return [
        plugin
        for plugin in plugins()
        if any(map(plugin.defines, named)) or any(file.is_relative_to(plugin.conf) for file in files)
    ]


def _listed(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options listed in hybrids, each with its group."""
    for node in config.values():
        entries = node.get("layers") if isinstance(node, Mapping) else None
        for entry in entries if isinstance(entries, list) else ():
            for name, settings in entry.items() if isinstance(entry, Mapping) else [(entry, None)]:
                yield "attention", name
                position = (settings or {}).get("position")
                if position is not None:
                    yield "position", next(iter(position)) if isinstance(position, Mapping) else position


def target_overrides(config: Mapping[str, Any], record: RecordedChoices) -> dict[str, str]:
    """The replaced `_target_`s of a stored configuration, or of flat settings, from what its run recorded.

    Runs of earlier versions did not record them. For these, parts without an option and parts whose `_target_` was
    typed count as replaced.
    """
    if record.ignored_keys is not None:
        return record.target_overrides
    choices, typed = record.choices, [override for override in record.overrides if "_target_" in override]

    def is_target_override(key: str, target: str) -> bool:
        if any(target in override for override in typed):
            return target != target_at(key, choices)
        return key not in choices and target_at(key, choices) is None

    return {key: target for key, target in targets(config).items() if is_target_override(key, target)}


def with_current_targets(config: Mapping[str, Any], record: RecordedChoices) -> dict[str, Any]:
    """Update a stored configuration to the current keys and classes of its options, in this project or a plugin.

    Args:
        config: the configuration as plain containers.
        record: the record of its run.
    """
    config = new_config(config, record.choices)
    kept = target_overrides(config, record)

    def renew(node: Mapping[str, Any], path: str) -> dict[str, Any]:
        found = {
            key: renew(value, f"{path}.{key}" if path else str(key)) if isinstance(value, Mapping) else value
            for key, value in node.items()
        }
        if str(found.get("_target_")).startswith(allowed_prefixes()) and path not in kept:
            found["_target_"] = target_at(path, record.choices) or found["_target_"]
        return found

    return renew(config, "")

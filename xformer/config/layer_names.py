"""A short name for the layers of a hybrid: `hybrid(3xlocal+full)` for `[local, local, local, full]`.

Hyper-parameters are named if they differ from the option's file; a repeated list is named once.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from xformer.config.groups import load_option, option_file
from xformer.config.plugins import cached_by_plugins

_POSITION = "position"
_LAYERS = ".layers"


def with_layers(option: str, layers: Any) -> str:
    """An option's name with its layers, such as `hybrid(3xlocal+full)`.

    Args:
        option: the option, such as `hybrid`.
        layers: the entries, as a list or its string; None for an option without layers.
    """
    entries = ast.literal_eval(layers) if isinstance(layers, str) else layers
    return f"{option}({_joined([_entry('attention', each) for each in entries])})" if entries else option


def shown_choice(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a setting for display; a hybrid includes its layers."""
    layers = settings.get(f"{key}{_LAYERS}")
    is_list = isinstance(layers, str) and layers.startswith("[")  # and not a number, as of size.layers
    return with_layers(str(settings[key]), layers) if is_list else settings[key]


def shown_overrides(overrides: Iterable[str], layers: Mapping[str, tuple[str, Any]]) -> list[str]:
    """Overrides for display, with a hybrid's entries in its option's name, as in `attention=hybrid(local+full)`.

    Args:
        overrides: as the command line spells them.
        layers: the option and the entries of each hybrid, by its key in the configuration.
    """
    found = list(overrides)
    for key, (option, entries) in layers.items():
        typed = [override for override in found if override.startswith(f"{key}{_LAYERS}=")]
        if not typed:
            continue
        chosen = [override for override in found if re.fullmatch(rf"(\w+@)?{key}={option}", override)]
        stands = chosen[0] if chosen else typed[0]
        name = f"{stands.partition('=')[0].removesuffix(_LAYERS)}={with_layers(option, entries)}"
        found = [name if override == stands else override for override in found if override not in {*typed} - {stands}]
    return found


def _joined(names: list[str]) -> str:
    repeats = (names[:size] for size in range(1, len(names) + 1) if len(names) % size == 0)
    period = next(part for part in repeats if part * (len(names) // len(part)) == names)
    runs = [(name, len(list(run))) for name, run in itertools.groupby(period)]
    return "+".join(name if count == 1 else f"{count}x{name}" for name, count in runs)


def _entry(group: str, entry: Any) -> str:
    """The name of one entry: `local`, or `local(window=8)` if a value differs from the option's file."""
    name, settings = next(iter(entry.items())) if isinstance(entry, Mapping) else (str(entry), {})
    defaults = _defaults(group, str(name))
    texts = {
        key: _entry(_POSITION, value) if key == _POSITION else _text(value)
        for key, value in (settings or {}).items()
        if key == _POSITION or key not in defaults or defaults[key] != value
    }
    listed = ",".join(f"{key}={text}" for key, text in texts.items())
    return f"{name}({listed})" if listed else str(name)


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@cached_by_plugins
def _defaults(group: str, name: str) -> Mapping[str, Any]:
    if option_file(group, name) is None:
        return {}
    return cast(dict[str, Any], OmegaConf.to_container(load_option(group, name)))

"""The entries of a hybrid: the list of options for its layers, such as `[local, {full: {position: none}}]`."""

import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from omegaconf import DictConfig, OmegaConf

from xformer.attention.base import Capable
from xformer.attention.hybrid import LayerEntry
from xformer.config.groups import groups, load_option, nearest
from xformer.config.validate import _parameters, target, validate_option
from xformer.config.values import format_value
from xformer.errors import ConfigError
from xformer.position.base import Position

_POSITION = "position"


@dataclass(frozen=True)
class Option:
    """An option of a group with its hyper-parameters.

    Attributes:
        name: of the option.
        node: its node, with all hyper-parameters.
    """

    name: str
    node: DictConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The hyper-parameters."""
        found = cast(dict[str, Any], OmegaConf.to_container(self.node, resolve=True))
        return {key: value for key, value in found.items() if not key.startswith("_")}

    def written_out(self, **more: Any) -> str | dict[str, Any]:
        """The option as a configuration names it, with every hyper-parameter."""
        settings = {**self.settings, **more}
        return {self.name: settings} if settings else self.name


@dataclass(frozen=True)
class Layer:
    """One entry of a hybrid: a variant and, optionally, a position scheme.

    Attributes:
        path: the entry's path in the configuration, such as `attention.layers[1]`.
        attention: the attention or token mixer.
        position: the entry's own position scheme; None for the stack's.
    """

    path: str
    attention: Option
    position: Option | None

    @property
    def variant(self) -> type[Capable]:
        """The class of the attention or token mixer."""
        return cast(type[Capable], target(self.attention.node))

    @property
    def scheme(self) -> type[Position] | None:
        """The class of the entry's own position scheme; None if it uses the stack's."""
        return None if self.position is None else cast(type[Position], target(self.position.node))

    def written_out(self) -> str | dict[str, Any]:
        """The entry with every hyper-parameter."""
        more = {} if self.position is None else {_POSITION: self.position.written_out()}
        return self.attention.written_out(**more)

    def instantiable(self) -> dict[str, Any]:
        """The node that makes a `LayerEntry`."""
        nodes = {
            key: None if option is None else OmegaConf.to_container(option.node, resolve=True)
            for key, option in (("attention", self.attention), (_POSITION, self.position))
        }
        name = json.dumps(self.written_out(), sort_keys=True)
        options = {"option": self.attention.name, "position_option": self.position and self.position.name}
        return {"_target_": f"{LayerEntry.__module__}.{LayerEntry.__qualname__}", "name": name, **nodes, **options}


def holds_layers(hint: Any) -> bool:
    """Whether a parameter is annotated to take the entries of a hybrid."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return LayerEntry in typing.get_args(hint)


def read_layers(value: Any, path: str) -> list[Layer]:
    """Read and check a list of entries.

    Args:
        value: a plain list of options, each a name or a mapping of one name to hyper-parameters.
        path: the list's path, for messages.

    Raises:
        ConfigError: naming the entry and what would be valid.
    """
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{path}={format_value(value)} must be a list of options, such as [local,local,full].")
    return [_read_layer(entry, f"{path}[{index}]") for index, entry in enumerate(value)]


def layers_of(node: DictConfig, key: str, option: str) -> list[Layer]:
    """The entries of a hybrid, or the one of any other option of `conf/attention/`.

    Args:
        node: the option's.
        key: where it stands in the configuration.
        option: its name.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    layers = _layers_key(plain)
    return [Layer(key, Option(option, node), None)] if layers is None else read_layers(plain[layers], f"{key}.{layers}")


def _read_layer(entry: Any, path: str) -> Layer:
    name, settings = _named(entry, path)
    position, below = None, f"{path}.{name}.{_POSITION}"
    if _POSITION in settings:
        scheme = settings.pop(_POSITION)
        if scheme is None:
            raise ConfigError(
                f"{below}=null is not an option: write none for no positions, or leave it out for those of the stack."
            )
        position = _option(_POSITION, *_named(scheme, below), below)
    return Layer(path, _option("attention", name, settings, path), position)


def _named(entry: Any, path: str) -> tuple[str, dict[str, Any]]:
    """An option and its hyper-parameters, from `local` or from `{local: {window: 8}}`."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        (name, settings), *_ = entry.items()
        if isinstance(name, str) and isinstance(settings, Mapping | None):
            return name, {str(key): value for key, value in (settings or {}).items()}
    raise ConfigError(
        f"{path}={format_value(entry)} is not an option: write the option's name, or "
        "{name: {hyper-parameter: value}}."
    )


def _option(group: str, name: str, settings: Mapping[str, Any], path: str) -> Option:
    options = [option for option in groups()[group] if inspect.isclass(target(load_option(group, option)))]
    if name in groups()[group] and name not in options:
        raise ConfigError(
            f"{path}={name} is made of other options and cannot be one of its own layers; write those options instead, "
            "such as [local,local,full]."
        )
    if name not in options:
        raise ConfigError(f"{path}={name} is not an option; {nearest(name, options)}")
    node = OmegaConf.merge(load_option(group, name), dict(settings))
    assert isinstance(node, DictConfig)
    validate_option(node, group, f"{path}.{name}")
    return Option(name, node)


def expanded(node: Any, path: str = "") -> Any:
    """A plain configuration whose hybrid entries are expanded into nodes that Hydra can instantiate."""
    if not isinstance(node, Mapping):
        return node
    if layers := _layers_key(node):
        entries = read_layers(node[layers], f"{path}{layers}")
        return {**node, layers: [entry.instantiable() for entry in entries]}
    return {key: expanded(value, f"{path}{key}.") for key, value in node.items()}


def shorten_layers(config: DictConfig) -> None:
    """Shorten the entries of each hybrid to the smallest list that, repeated, gives the same layers.

    So the same layers are one configuration, however they were written.

    Args:
        config: a valid configuration, in which the entries are replaced.
    """
    # If the depth is still adjusted, the entries must stand for the same layers at every depth.
    fixed = config.get("match") is None or config.match.by != "size.layers"
    for node in list(config.values()):
        key = _layers_key(cast(dict[str, Any], OmegaConf.to_container(node))) if isinstance(node, DictConfig) else None
        if key is not None:
            entries = OmegaConf.to_container(node[key])
            assert isinstance(entries, list)
            node[key] = _shortest(entries, config.size.layers if fixed else None)


def _shortest(entries: list[Any], depth: int | None) -> list[Any]:
    """The shortest prefix that, repeated, gives the same layers at this depth; for None, at every depth."""
    count = len(entries)
    for size in range(1, count):
        same = all(entries[index] == entries[index % size] for index in range(count))
        at_depth = depth is not None and all(entries[layer % count] == entries[layer % size] for layer in range(depth))
        if at_depth or (same and count % size == 0):
            return entries[:size]
    return entries


def _layers_key(node: Mapping[Any, Any]) -> str | None:
    """The key that holds the entries of a hybrid; None if the node is not a hybrid."""
    if "_target_" not in node or not any(isinstance(value, list) for value in node.values()):
        return None
    hints = _parameters(target(OmegaConf.create({"_target_": node["_target_"]})))
    return next((key for key in node if holds_layers(hints.get(key))), None)

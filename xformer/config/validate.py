"""Checks a composed configuration against the code it names, before anything is built.

Hydra's struct mode covers the command line alone: a misspelt key inside a file would be merged in silence. Here every
node with a `_target_` is compared with that target's signature, and what is left with the keys of `train.yaml`.
"""

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Literal, TypedDict, Unpack

from annotated_types import Ge, Interval
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.config.groups import command_line_key, groups, nearest, slots
from xformer.config.lightning_ranges import RANGES
from xformer.config.moved import MOVED
from xformer.config.parts import PARTS, is_factory, is_part, produces
from xformer.config.plugins import allowed_prefixes
from xformer.config.values import check_value, format_value
from xformer.errors import ConfigError, XformerError

_INSTANTIATE = {"_target_", "_partial_"}


class MonitorSettings(TypedDict):
    """The settings of `monitor`: the metric that decides which weights are best."""

    name: str
    mode: Literal["min", "max"]


_SETTINGS: dict[str, Any] = {
    "seed": Annotated[int, Interval(ge=0, lt=2**32)],
    "threads": Annotated[int, Ge(1)] | Literal["auto"],
    "compile": bool | Literal["reduce-overhead"],
    "resume": bool,
    "init_from": str | None,
    "skip_finished": bool,
    "study": dict[str, str | int | float | list[int] | dict[str, Any]] | None,
    "on_incompatible": Literal["fail", "skip"],
    "cache": str,
    "monitor": MonitorSettings,
}


def target(node: DictConfig) -> Callable[..., Any]:
    """Import the class or function named by a node's `_target_`.

    Raises:
        ConfigError: the name lies outside this project and Lightning, or does not exist.
    """
    name, allowed = str(node._target_), (*allowed_prefixes(), "lightning.pytorch.")
    if not name.startswith(allowed):
        raise ConfigError(
            f"_target_={name} is not allowed; targets begin with {' or '.join(allowed)}, or with a package that is "
            "named as a plugin."
        )
    try:
        module, _, member = name.rpartition(".")
        found: Callable[..., Any] = getattr(import_module(module), member)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_={name} cannot be imported: {error}.") from error
    except Exception as error:
        if name.startswith("xformer."):
            raise
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"_target_={name} cannot be imported ({message}).") from error
    if not callable(found):
        raise ConfigError(f"_target_={name} is not callable: it must be a class or a function.")
    return found


def validate(config: DictConfig) -> None:
    """Check keys, types and ranges of a whole configuration; return it with the entries of hybrids expanded.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    known = {*_SETTINGS, *groups(), *slots()}
    _refuse_unchosen_slots(config)
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"{key} is not a key of the configuration; {nearest(key, known)}")
        value = _value(config, key)
        if key in _SETTINGS:
            check_value(key, value, _SETTINGS[key])
        elif isinstance(value, DictConfig):
            _validate_node(value, key, PARTS.get(slots().get(key, key)))
        elif value is not None:
            raise ConfigError(f"{key}={format_value(value)} is not an option; {nearest(str(value), groups()[key])}")


def _refuse_unchosen_slots(config: DictConfig) -> None:
    """Refuse a value in place of a slot's option, before other nodes refer to it."""
    for key in filter(config.__contains__, slots()):
        value = _value(config, key)
        if not isinstance(value, DictConfig):
            options = groups()[slots()[key]]
            known = value in options
            way_out = "." if known else f" with one of its options; {nearest(str(value), options)}"
            raise ConfigError(
                f"{key}={format_value(value)} does not choose an option; on the command line, write "
                f"{command_line_key(key)}={value if known else '...'}{way_out}"
            )


def validate_option(node: DictConfig, group: str, path: str | None = None) -> None:
    """Check one option by itself.

    Args:
        node: of the option.
        group: that it is an option of.
        path: of the node, to name in the message; None for the group.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    _validate_node(node, path or group, PARTS[group])


def _validate_node(node: DictConfig, path: str, hint: Any) -> None:
    """Check a part, or a mapping of parts.

    Args:
        node: not null.
        path: of the node, to name in the message.
        hint: the type that the part must have, or a dictionary of it.
    """
    if typing.get_origin(hint) is dict:
        for key in map(str, node):
            value = _value(node, key, path)
            if isinstance(value, DictConfig):
                _validate_node(value, f"{path}.{key}", typing.get_args(hint)[1])
            elif value is not None:
                raise ConfigError(f"{path}.{key}={format_value(value)} has no _target_; null removes it.")
        return
    found = _part(node, path, hint)
    _validate_keys(node, path, found)


def _validate_keys(node: DictConfig, path: str, found: Callable[..., Any]) -> None:
    """Check the keys of a part, or of a block of options, against the parameters of what it makes."""
    from xformer.config import entries  # which validates the entries with what is here

    parameters = _parameters(found)
    for key in map(str, node):
        name = f"{path}.{key}"
        if key in _INSTANTIATE and "_target_" in node:
            continue
        if key not in parameters:
            raise ConfigError(f"{name} is not a parameter of {_name(node, found)}; {_renamed(name, key, parameters)}")
        value, hint = _value(node, key, path), parameters[key]
        if isinstance(value, DictConfig) and "_target_" in value and is_part(hint):
            # What another part is, is checked under its own name.
            look = _part if OmegaConf.is_interpolation(node, key) else _validate_node
            look(value, name, hint)
        elif is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, DictConfig):
                raise ConfigError(
                    f"{name}={format_value(value)} must be a mapping with the keys {', '.join(_required(hint))}."
                )
            _validate_keys(value, name, hint)
        elif entries.holds_layers(hint):
            node[key] = [entry.written_out() for entry in entries.read_layers(_plain(value, name), name)]
        else:
            check_value(name, _plain(value, name), hint)
    missing = [name for name in _required(found) if name not in node]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; {_name(node, found)} requires it.")


def _name(node: DictConfig, found: Callable[..., Any]) -> str:
    return str(node._target_) if "_target_" in node else found.__name__


def _renamed(name: str, key: str, options: Iterable[str]) -> str:
    """A hint for an unknown key: its current name if it was renamed, else the nearest valid names."""
    return f"it is {MOVED[name]} now." if name in MOVED else nearest(key, options)


def _part(node: DictConfig, path: str, hint: Any) -> Callable[..., Any]:
    """The target of a node, checked to return the expected type."""
    if not isinstance(_value(node, "_target_", path) if "_target_" in node else None, str):
        raise ConfigError(f"{path}._target_ is missing: choose an option, or name the class to use.")
    found = target(node)
    if not produces(found, hint):
        raise ConfigError(f"{path}._target_={node._target_} does not return the type that {path} needs.")
    partial = _value(node, "_partial_", path) if "_partial_" in node else False
    if partial is not is_factory(hint):
        right = format_value(is_factory(hint))
        raise ConfigError(
            f"{path}._partial_={format_value(partial)} must be {right}: it is set by the code and cannot be chosen."
        )
    return found


def _value(node: DictConfig, key: str, path: str = "") -> Any:
    name = f"{path}.{key}" if path else key
    try:
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name} is not set; set it on the command line: {name}=...")
        value = node[key]
    except OmegaConfBaseException as error:
        raise _unresolved(name, error) from error
    return _plain(value, name) if name in _SETTINGS else value


def _plain(value: Any, name: str) -> Any:
    """Convert a node to plain lists and dictionaries."""
    try:
        return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
    except OmegaConfBaseException as error:
        raise _unresolved(name, error) from error


def _unresolved(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"{name} cannot be resolved: {str(error).splitlines()[0].rstrip('.')}.")


def _parameters(found: Callable[..., Any]) -> dict[str, Any]:
    """The parameters that a configuration may set: the keyword-only ones of our own code, all of other code."""
    signature = inspect.signature(found)
    kinds: list[inspect._ParameterKind] = [inspect.Parameter.KEYWORD_ONLY]
    if not found.__module__.startswith(allowed_prefixes()):
        kinds += [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    hints |= RANGES.get(found, {})
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]
    parameters = {name: hints.get(name, Any) for name in names}
    return parameters | _unpacked(hints)


def _unpacked(hints: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `**options: Unpack[Options]`, and their types."""
    dicts = [typing.get_args(hint)[0] for hint in hints.values() if typing.get_origin(hint) is Unpack]
    return {name: hint for each in dicts for name, hint in typing.get_type_hints(each, include_extras=True).items()}


def _required(found: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(found).parameters.values()
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty] + [*_unpacked(hints)]


def instantiate_node(node: DictConfig) -> Any:
    """Instantiate a node, without Hydra's wrapper around our own error messages.

    A block of options below a factory, such as `data.loader`, becomes the dataclass that the factory asks for.

    Raises:
        XformerError: whatever the target raised.
    """
    from xformer.config.entries import expanded

    plain = OmegaConf.to_container(node, resolve=True)
    ready = expanded(plain)
    try:
        made = instantiate(node if ready == plain else ready, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, XformerError):
            raise error.__cause__ from None
        raise
    if isinstance(made, partial):
        hints = _parameters(made.func)
        return partial(
            made.func, *made.args, **{key: _block(value, hints[key]) for key, value in made.keywords.items()}
        )
    return made


def _block(value: Any, hint: Any) -> Any:
    return hint(**value) if isinstance(value, dict) and is_dataclass(hint) and isinstance(hint, type) else value

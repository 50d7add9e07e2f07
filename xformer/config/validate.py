"""Checks a composed configuration against the code it names, before anything is built.

Hydra's struct mode covers the command line alone: a misspelt key inside a file would be merged in silence. Here every
node with a `_target_` is compared with that target's signature, and what is left with the keys of `train.yaml`.
"""

import difflib
import functools
import hashlib
import inspect
import re
import secrets
import shlex
import traceback
import typing
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Ge, Interval
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.config.identity import reproducing_overrides
from xformer.config.redact import is_secret, redact
from xformer.config.values import check_value, format_value
from xformer.errors import ConfigError, XformerError

CONF = Path(__file__).parents[1] / "conf"
ALLOWED_TARGETS = ("xformer.", "lightning.pytorch.")
_LISTED = 12
_LONGEST_NAME = 200
_BETWEEN_OVERRIDES = re.compile(r",(?=[+~]*[\w./@]+=)")  # and not between the values of a list
_INSTANTIATE = {"_target_", "_partial_"}


class MonitorSettings(TypedDict):
    """The metric that decides which weights are the best."""

    name: str
    mode: Literal["min", "max"]


_SETTINGS: dict[str, Any] = {
    "seed": Annotated[int, Interval(ge=0, lt=2**32)],
    "threads": Annotated[int, Ge(1)] | Literal["auto"],
    "compile": bool | Literal["reduce-overhead"],
    "resume": bool,
    "init_from": str | None,
    "skip_finished": bool,
    "study": dict[str, str | int | float | list[int] | dict[str, dict[str, Any]]] | None,
    "on_incompatible": Literal["fail", "skip"],
    "cache": str,
    "monitor": MonitorSettings,
}


def groups() -> dict[str, list[str]]:
    """Every group of `conf/` and its options."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }


@functools.cache
def defaults() -> dict[str, tuple[str, str | None]]:
    """What `train.yaml` chooses: each key of a configuration that holds an option, its group, and the option."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml").defaults, resolve=False)
    chosen = [item for entry in entries if isinstance(entry, dict) for item in entry.items()]
    found = [(str(key).partition("@"), option) for key, option in chosen]
    return {slot or group: (group, option) for (group, _, slot), option in found if group in groups()}


def slots() -> dict[str, str]:
    """The keys of a configuration that hold one more choice from a group (decoder_attention), and that group."""
    return {key: group for key, (group, _) in defaults().items() if key != group}


def slot_default(key: str, choices: dict[str, str]) -> str:
    """What a slot holds unless it is chosen: an option, or whatever another group's choice is."""
    default = str(defaults()[key][1])
    return choices[default[2:-1]] if default.startswith("${") else default


def command_line_key(key: str) -> str:
    """How the command line spells a key: attention@decoder_attention, where it is a slot."""
    return f"{slots()[key]}@{key}" if key in slots() else key


def nearest(name: str, options: Iterable[str]) -> str:
    """The way out of a misspelling: `did you mean x? Valid: x, y, z.`, without the list where it is long."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1)
    listed = f"Valid: {', '.join(options)}."
    if not near:
        return listed
    return f"did you mean {near[0]}?" + (f" {listed}" if len(options) <= _LISTED else "")


def target(node: DictConfig) -> Callable[..., Any]:
    """The class or function that a node names.

    Raises:
        ConfigError: the name lies outside this project and Lightning, or does not exist.
    """
    name = str(node._target_)
    if not name.startswith(ALLOWED_TARGETS):
        raise ConfigError(f"_target_={name} is not allowed; targets begin with {' or '.join(ALLOWED_TARGETS)}")
    try:
        module, _, member = name.rpartition(".")
        found: Callable[..., Any] = getattr(import_module(module), member)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_={name} cannot be imported: {error}.") from error
    if not callable(found):
        raise ConfigError(f"_target_={name} makes nothing: it must be a class or a function.")
    return found


def validate(config: DictConfig) -> None:
    """Check keys, types and ranges of a whole configuration.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    from xformer.config import parts  # which takes seconds to import

    known = {*_SETTINGS, *groups(), *slots()}
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"{key} is not a key of the configuration; {nearest(key, known)}")
        value = _value(config, key)
        if key in _SETTINGS:
            check_value(key, value, _SETTINGS[key])
        elif isinstance(value, DictConfig):
            _validate_node(value, key, parts.PARTS.get(slots().get(key, key)))
        elif key in slots():
            raise ConfigError(
                f"{key}={format_value(value)} is no choice of an option: the command line spells it "
                f"{command_line_key(key)}={value}."
            )
        elif value is not None:
            raise ConfigError(f"{key}={format_value(value)} is not an option; {nearest(str(value), groups()[key])}")


def validate_option(node: DictConfig, group: str) -> None:
    """Check one option by itself.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    from xformer.config import parts

    _validate_node(node, group, parts.PARTS[group])


def _validate_node(node: DictConfig, path: str, hint: Any) -> None:
    """Check a part, or a mapping of parts.

    Args:
        node: not null.
        path: of the node, to name in the message.
        hint: the type that the part must have, or a dictionary of it.
    """
    from xformer.config import parts

    if typing.get_origin(hint) is dict:
        for key in map(str, node):
            value = _value(node, key, path)
            if isinstance(value, DictConfig):
                _validate_node(value, f"{path}.{key}", typing.get_args(hint)[1])
            elif value is not None:
                raise ConfigError(f"{path}.{key}={format_value(value)} is no part with a _target_; null removes it.")
        return
    found = _part(node, path, hint)
    parameters = _parameters(found)
    for key in map(str, node):
        if key in _INSTANTIATE:
            continue
        if key not in parameters:
            raise ConfigError(f"{path}.{key} is not a parameter of {node._target_}; {nearest(key, parameters)}")
        value = _value(node, key, path)
        if isinstance(value, DictConfig) and "_target_" in value and parts.is_part(parameters[key]):
            # What another part is, is checked under its own name.
            look = _part if OmegaConf.is_interpolation(node, key) else _validate_node
            look(value, f"{path}.{key}", parameters[key])
        else:
            check_value(f"{path}.{key}", _plain(value, f"{path}.{key}"), parameters[key])
    missing = [name for name in _required(found) if name not in node]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; {node._target_} cannot do without it.")


def _part(node: DictConfig, path: str, hint: Any) -> Callable[..., Any]:
    """The target of a node, if it makes what is wanted there."""
    from xformer.config import parts

    if not isinstance(_value(node, "_target_", path) if "_target_" in node else None, str):
        raise ConfigError(f"{path}._target_ is not there: choose an option, or say what the part is.")
    found = target(node)
    if not parts.produces(found, hint):
        raise ConfigError(f"{path}._target_={node._target_} makes something else than {path} needs.")
    partial = _value(node, "_partial_", path) if "_partial_" in node else False
    if partial is not parts.is_factory(hint):
        right = format_value(parts.is_factory(hint))
        raise ConfigError(
            f"{path}._partial_={format_value(partial)} must be {right}: the code decides it, not the choice."
        )
    return found


def _value(node: DictConfig, key: str, path: str = "") -> Any:
    name = f"{path}.{key}" if path else key
    try:
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name} is not set; give it on the command line: {name}=...")
        value = node[key]
    except OmegaConfBaseException as error:
        raise _unresolved(name, error) from error
    return _plain(value, name) if name in _SETTINGS else value


def _plain(value: Any, name: str) -> Any:
    """Lists and dictionaries of Python's own."""
    try:
        return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
    except OmegaConfBaseException as error:
        raise _unresolved(name, error) from error


def _unresolved(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"{name} cannot be resolved: {str(error).splitlines()[0].rstrip('.')}.")


def _parameters(found: Callable[..., Any]) -> dict[str, Any]:
    """What a configuration may set: keyword-only parameters of our own code, all parameters of another's."""
    signature = inspect.signature(found)
    kinds: list[inspect._ParameterKind] = [inspect.Parameter.KEYWORD_ONLY]
    if not found.__module__.startswith("xformer."):
        kinds += [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    hints |= _ranges().get(found, {})
    return {name: hints.get(name, Any) for name, parameter in signature.parameters.items() if parameter.kind in kinds}


@functools.cache
def _ranges() -> dict[Callable[..., Any], dict[str, Any]]:
    from xformer.config.lightning_ranges import RANGES  # which takes seconds to import

    return RANGES


def _required(found: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(found).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def explain_error(error: Exception) -> str:
    """One sentence for an error of ours, of Hydra's or of OmegaConf's."""
    if isinstance(error, XformerError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is not an option; {nearest(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, str(error).splitlines()[0])
    message = " ".join(str(error).split())
    if found := re.search(r"Could not override '([^']+)'", message):
        return f"{found[1]} is not a key of the configuration; {_near_key(found[1])}"
    if found := re.search(r"Ambiguous value for argument '(.+?)' 1\. ", message):
        return f"{found[1]} names several values: python train.py -m {found[1]} runs each of them."
    if found := re.search(r"(.+?) full_key: (\S+)", message):
        return f"{found[2]}: {found[1].rstrip('.')}."
    return message


def explain_missing_choice(overrides: Iterable[str]) -> str | None:
    """The sentence for a group that is given no option, `data=null`; None where there is none."""
    for override in overrides:
        group, equals, value = override.partition("=")
        if equals and group in groups() and value.strip().lower() in ("null", "none", "true", "false", ""):
            return f"{override} is not an option; {nearest(value, groups()[group])}"
    return None


def is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised an error while they read what was typed, and not our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not {"hydra", "omegaconf"}.isdisjoint(Path(frames[-1].filename).parts)


def _unreadable(override: str, reason: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is not an override ({reason}); write key=value."
    quoted = shlex.quote(f'{key}="{value}"')
    return f"{override} cannot be read ({reason}); a value that holds =, a comma or a bracket is quoted: {quoted}."


def _near_key(name: str) -> str:
    """The way out of a key that is none: its siblings, or where a key of this name stands."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train")
    parent, _, key = name.rpartition(".")
    siblings = OmegaConf.select(config, parent) if parent else None
    if isinstance(siblings, DictConfig):
        return nearest(key, (str(sibling) for sibling in siblings if not str(sibling).startswith("_")))
    keys = [place for place in _keys() if place.rpartition(".")[2] == key]
    if keys:
        return f"did you mean {' or '.join(keys[:3])}?"
    return nearest(name, {*groups(), *(str(top) for top in config)})


def _keys() -> list[str]:
    """The keys of all options, such as `attention.rank`, and the groups, which are keys themselves."""
    found = [file for group in groups() for file in sorted((CONF / group).glob("*.yaml")) if group != "experiment"]
    nodes: list[tuple[str, Any]] = [(file.parent.name, OmegaConf.load(file)) for file in found]
    below = [f"{group}.{key}" for group, node in nodes for key in map(str, node) if not key.startswith("_")]
    return [*groups(), *dict.fromkeys(below)]


def instantiate_node(node: DictConfig) -> Any:
    """Instantiate a node; an error of ours keeps its sentence, which Hydra would wrap in its own.

    Raises:
        XformerError: whatever the target raised.
    """
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, XformerError):
            raise error.__cause__ from None
        raise


def cell_directory_name(name: str) -> str:
    """A directory's name for a cell of a sweep, from its overrides, whatever number it has in the sweep.

    What cannot change its result is no part of the name: with another logger it is the same cell. Nor is a secret.
    """
    overrides = [override for override in _BETWEEN_OVERRIDES.split(name) if not is_secret(override.partition("=")[0])]
    name = redact(",".join(reproducing_overrides(overrides)))
    plain = re.sub(r"[^\w.,=@+-]+", "_", name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name and len(name) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 9]}-{digest}"


OmegaConf.register_new_resolver("cell", cell_directory_name, replace=True)
# A few letters that keep apart two runs started in the same second: ${unique:} in conf/train.yaml.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(2), use_cache=True, replace=True)

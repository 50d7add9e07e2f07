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
import typing
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.analysis.settings import replayed
from xformer.errors import ConfigError, XformerError
from xformer.record.redact import is_secret, redact

CONF = Path(__file__).parent / "conf"
ALLOWED_TARGETS = ("xformer.", "lightning.pytorch.")
_LISTED = 12
_LONGEST_NAME = 200
_BETWEEN_OVERRIDES = re.compile(r",(?=[+~]*[\w./@]+=)")  # and not between the values of a list
_NUMBERS = BeartypeConf(is_pep484_tower=True)
_INSTANTIATE = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_SETTINGS: dict[str, Any] = {
    "seed": int,
    "threads": int | Literal["auto"],
    "compile": bool | Literal["reduce-overhead"],
    "resume": bool,
    "init_from": str | None,
    "skip_finished": bool,
    "study": dict[str, str | dict[str, dict[str, Any]]] | None,
    "on_incompatible": Literal["fail", "skip"],
    "cache": str,
    "monitor": dict[str, str],
}


def groups() -> dict[str, list[str]]:
    """Every group of `conf/` and its options."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }


@functools.cache
def _slot_defaults() -> dict[str, tuple[str, str]]:
    entries = [entry for entry in OmegaConf.load(CONF / "train.yaml").defaults if isinstance(entry, DictConfig)]
    found = [(str(key), str(entry._get_node(key))) for entry in entries for key in entry]
    return {key.partition("@")[2]: (key.partition("@")[0], default) for key, default in found if "@" in key}


def slots() -> dict[str, str]:
    """The keys of a configuration that hold one more choice from a group (decoder_attention), and that group."""
    return {key: group for key, (group, _) in _slot_defaults().items()}


def slot_default(key: str, choices: dict[str, str]) -> str:
    """What a slot holds unless it is chosen: an option, or whatever another group's choice is."""
    default = _slot_defaults()[key][1]
    return choices[default[2:-1]] if default.startswith("${") else default


def typed(key: str) -> str:
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
    return found


def validate(config: DictConfig) -> None:
    """Check keys and types of a whole configuration.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    known = {*_SETTINGS, *groups(), *slots()}
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"{key} is not a key of the configuration; {nearest(key, known)}")
        value = _value(config, key)
        if key in slots() and not isinstance(value, DictConfig):
            raise ConfigError(
                f"{key}={value} is no choice of an option: the command line spells it {typed(key)}={value}."
            )
        if key in _SETTINGS:
            _check_type(key, value, _SETTINGS[key])
        else:
            _validate_node(value, key)


def _validate_node(node: Any, path: str) -> None:
    if not isinstance(node, DictConfig):
        return
    if "_target_" not in node:
        for key in map(str, node):
            _validate_node(_value(node, key, path), f"{path}.{key}")
        return
    parameters = _parameters(target(node))
    for key in map(str, node):
        if key in _INSTANTIATE:
            continue
        if key not in parameters:
            raise ConfigError(f"{path}.{key} is not a parameter of {node._target_}; {nearest(key, parameters)}")
        value = _value(node, key, path)
        if isinstance(value, DictConfig) and "_target_" in value:
            if not OmegaConf.is_interpolation(node, key):  # else a part that is checked under its own name
                _validate_node(value, f"{path}.{key}")
            continue
        _check_type(f"{path}.{key}", value, parameters[key])
    missing = [name for name in _required(target(node)) if name not in node]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; {node._target_} cannot do without it.")


def _value(node: DictConfig, key: str, path: str = "") -> Any:
    name = f"{path}.{key}" if path else key
    try:
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name} is not set; give it on the command line: {name}=...")
        return node[key]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name} cannot be resolved: {str(error).splitlines()[0]}.") from error


def _parameters(found: Callable[..., Any]) -> dict[str, Any]:
    """What a configuration may set: keyword-only parameters of our own code, all parameters of another's."""
    signature = inspect.signature(found)
    kinds: list[inspect._ParameterKind] = [inspect.Parameter.KEYWORD_ONLY]
    if not found.__module__.startswith("xformer."):
        kinds += [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    return {name: hints.get(name, Any) for name, parameter in signature.parameters.items() if parameter.kind in kinds}


def _required(found: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(found).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def _check_type(path: str, value: Any, hint: Any) -> None:
    plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
    if not is_bearable(plain, hint, conf=_NUMBERS):
        raise ConfigError(
            f"{path}={plain} has the wrong type: {_describe(hint)} is expected, got {type(plain).__name__}."
        )


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(hint))
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def explain(error: Exception) -> str:
    """One sentence for an error of ours, of Hydra's or of OmegaConf's."""
    if isinstance(error, XformerError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is not an option; {nearest(option, error.options)}"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, str(error).splitlines()[0])
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found:
        return f"{found[1]} is not a key of the configuration; {_near_key(found[1])}"
    return " ".join(str(error).split())


def _unreadable(override: str, reason: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is not an override ({reason}); write key=value."
    quoted = shlex.quote(f'{key}="{value}"')
    return f"{override} cannot be read ({reason}); a value that holds =, a comma or a bracket is quoted: {quoted}."


def _near_key(name: str) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train")
    parent, _, key = name.rpartition(".")
    siblings = OmegaConf.select(config, parent) if parent else None
    if isinstance(siblings, DictConfig):
        return nearest(key, (str(sibling) for sibling in siblings if not str(sibling).startswith("_")))
    return nearest(name, {*groups(), *(str(top) for top in config)})


def make(node: DictConfig) -> Any:
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


def cell(name: str) -> str:
    """A directory's name for a cell of a sweep, from its overrides, whatever number it has in the sweep.

    What cannot change its result is no part of the name: with another logger it is the same cell. Nor is a secret.
    """
    overrides = [override for override in _BETWEEN_OVERRIDES.split(name) if not is_secret(override.partition("=")[0])]
    name = redact(",".join(replayed(overrides)))
    plain = re.sub(r"[^\w.,=@+-]+", "_", name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name and len(name) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 9]}-{digest}"


OmegaConf.register_new_resolver("cell", cell, replace=True)
# A few letters that keep apart two runs started in the same second: ${unique:} in conf/train.yaml.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(2), use_cache=True, replace=True)

"""Composing a configuration with Hydra, and explaining Hydra's errors in one sentence."""

import hashlib
import re
import secrets
import shlex
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.config.groups import command_line_key, groups, nearest, option_nodes, slots
from xformer.config.identity import reproducing_overrides
from xformer.config.moved import MOVED
from xformer.config.plugins import CONF, plugins
from xformer.config.redact import is_secret, redact
from xformer.core.program import train_command
from xformer.core.user_directories import user_cache
from xformer.errors import ConfigError, XformerError

_SETS = ("debug", "experiment")
"""Groups whose options set keys of other groups."""
_LONGEST_NAME = 200
_BETWEEN_OVERRIDES = re.compile(r",(?=[+~]*[\w./@]+=)")  # and not between the values of a list


class PluginSearchPath(SearchPathPlugin):
    """A Hydra search-path plugin that adds the `conf/` folders of xformer's plugins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add each plugin's `conf/`."""
        for plugin in plugins():
            search_path.append(provider=plugin.package, path=f"file://{plugin.conf}")


Plugins.instance().register(PluginSearchPath)


def compose_config(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The configuration that the command line `train.py OVERRIDES` composes.

    Args:
        overrides: as on the command line.
        with_hydra: whether to include Hydra's node.

    Raises:
        ConfigError: Hydra refuses an override.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_error(error)) from error
    except (ValueError, TypeError, AssertionError) as error:
        if not is_of_hydra(error):
            raise
        raise ConfigError(
            explain_missing_choice(overrides) or f"{' '.join(overrides)} cannot be composed: {error}."
        ) from error


def explain_error(error: Exception) -> str:
    """An error of ours, Hydra's or OmegaConf's as one sentence."""
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
        return f"{found[1]} names several values: {train_command()} -m {found[1]} runs each of them."
    if found := re.search(r"(.+?) full_key: (\S+)", message):
        return f"{found[2]}: {found[1].rstrip('.')}."
    return message


def explain_missing_choice(overrides: Iterable[str]) -> str | None:
    """An error message for a group set to null, such as `data=null`; None if no group is."""
    for override in overrides:
        group, equals, value = override.partition("=")
        if equals and group in groups() and value.strip().lower() in ("null", "none", "true", "false", ""):
            return f"{override} is not an option; {nearest(value, groups()[group])}"
    return None


def is_of_hydra(error: BaseException) -> bool:
    """Whether an error comes from Hydra or OmegaConf reading the command line, and not from our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not {"hydra", "omegaconf"}.isdisjoint(Path(frames[-1].filename).parts)


def _unreadable(override: str, reason: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is not an override ({reason}); write key=value."
    quoted = shlex.quote(f'{key}="{value}"')
    return f"{override} cannot be read ({reason}); a value that holds =, a comma or a bracket is quoted: {quoted}."


def _near_key(name: str) -> str:
    """A hint for an unknown key: the valid keys beside it, or where a key of this name exists."""
    if name in MOVED:
        return f"it is {MOVED[name]} now."
    config = compose_config([])
    parent, _, key = name.rpartition(".")
    top = parent.partition(".")[0]
    group = slots().get(top, top)
    siblings = OmegaConf.select(config, parent) if parent else None
    # Which option was chosen is not known here: it may have other keys than the default.
    if having := _options_with(group, name.removeprefix(f"{top}.")):
        return f"it is a key of {' or '.join(f'{command_line_key(top)}={option}' for option in having)}."
    if isinstance(siblings, DictConfig):
        here = {str(sibling) for sibling in siblings if not str(sibling).startswith("_")}
        within = f"{group}{parent.removeprefix(top)}."
        valid = here | {place.removeprefix(within).partition(".")[0] for place in _keys() if place.startswith(within)}
        return nearest(key, valid, f"{parent}.")
    matches = [place for place in _keys() if place.rpartition(".")[2] == key]
    if matches:
        return f"did you mean {' or '.join(matches[:3])}?"
    return nearest(name, {*groups(), *(str(top) for top in config)})


def _keys() -> list[str]:
    """All valid keys: the groups, and the keys of their options, such as `attention.rank`."""
    nodes = [(group, node) for group in groups() if group not in _SETS for _, node in option_nodes(group)]
    return [*groups(), *dict.fromkeys(key for group, node in nodes for key in _below(node, group))]


def _options_with(group: str, key: str) -> list[str]:
    """The options of a group that have a key, such as `hybrid` for `attention` and `layers`."""
    if group not in groups() or group in _SETS:
        return []
    return [option for option, node in option_nodes(group) if f"{group}.{key}" in _below(node, group)]


def _below(node: Any, path: str) -> Iterator[str]:
    for key in node:
        if not str(key).startswith("_"):
            yield f"{path}.{key}"
            inner = None if OmegaConf.is_interpolation(node, key) else node[key]
            yield from _below(inner, f"{path}.{key}") if isinstance(inner, DictConfig) else ()


def cell_directory_name(name: str) -> str:
    """The name of the run directory of a sweep's cell: made from its overrides, not from its number in the sweep.

    The name omits secrets and overrides that cannot change the result, such as the logger.
    """
    overrides = [override for override in _BETWEEN_OVERRIDES.split(name) if not is_secret(override.partition("=")[0])]
    name = redact(",".join(reproducing_overrides(overrides)))
    plain = re.sub(r"[^\w.,=@+-]+", "_", name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name and len(name) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 9]}-{digest}"


def cache_directory() -> str:
    """The cache directory: `.cache` inside a project (a repository or a pyproject.toml), else the user's cache."""
    here = Path.cwd()
    markers = [folder / mark for folder in (here, *here.parents) for mark in (".git", "pyproject.toml")]
    return ".cache" if any(marker.exists() for marker in markers) else str(user_cache())


OmegaConf.register_new_resolver("cache_directory", cache_directory, replace=True)
OmegaConf.register_new_resolver("train_command", train_command, replace=True)
OmegaConf.register_new_resolver("cell", cell_directory_name, replace=True)
# A few letters that keep apart two runs started in the same second: ${unique:} in conf/train.yaml.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(2), use_cache=True, replace=True)

"""Plugins: the user's own packages, which add options and the classes behind them.

A package is a plugin if it was installed with an entry point of the group `xformer.plugins`, or if the user names it:
by `plugins=[mypkg]` on any command line, by `plugins: [mypkg]` in `config.yaml` of the user's configuration directory,
or by the environment variable `XFORMER_PLUGINS`, which the processes of a sweep or of a strategy inherit. A stored run
does not name plugins: it is opened only if its plugins are installed and named in one of these ways.

Its folder `conf/` adds options to existing groups, and its classes are allowed as their `_target_`.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import ParamSpec, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from xformer.core.program import add_typed_plugins
from xformer.core.user_directories import user_config
from xformer.errors import ConfigError

GROUP = "xformer.plugins"
VARIABLE = "XFORMER_PLUGINS"
CONF = Path(__file__).parents[1] / "conf"
P = ParamSpec("P")
T = TypeVar("T")
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Plugin:
    """A plugin package that the user has named, and so trusts.

    Attributes:
        package: its import name.
        conf: its folder of options.
    """

    package: str
    conf: Path

    def defines(self, target: str) -> bool:
        """Whether a `_target_` belongs to this package."""
        return target.startswith(f"{self.package}.")


def name_plugins(words: Sequence[str]) -> list[str]:
    """Read `plugins=[...]` from a command line for this process and those that it starts; return the other arguments.

    Raises:
        ConfigError: a plugin cannot be used.
    """
    named = [word for word in words if word.startswith("plugins=")]
    packages = [package for word in named for package in _listed(word.partition("=")[2])]
    if packages:
        earlier = _listed(os.environ.get(VARIABLE, ""))
        elsewhere = {*earlier, *_of_settings(), *_of_entry_points()}
        add_typed_plugins(package for package in packages if package not in elsewhere)
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*earlier, *packages]))
    plugins()
    return [word for word in words if word not in named]


def plugins() -> tuple[Plugin, ...]:
    """The plugins that are installed and named.

    Raises:
        ConfigError: a named plugin cannot be used.
    """
    return _plugins(os.environ.get(VARIABLE, ""))


@functools.lru_cache(maxsize=8)
def _plugins(listed: str) -> tuple[Plugin, ...]:
    sources = {package: f"{VARIABLE} or plugins=" for package in _listed(listed)}
    sources |= {package: str(_settings()) for package in _of_settings()}
    sources |= {package: f"the entry point {GROUP}" for package in _of_entry_points()}
    found = tuple(_plugin(package, source) for package, source in sorted(sources.items()))
    _refuse_collisions(found)
    _refuse_unreadable(found)
    return found


def conf_folders() -> list[Path]:
    """All `conf/` folders: xformer's first, then those of the plugins."""
    return [CONF, *(plugin.conf for plugin in plugins())]


def cached_by_plugins(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator like `functools.cache`, for functions that read options: once for each set of named plugins."""

    @functools.cache
    def once(_: tuple[Path, ...], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return once(tuple(conf_folders()), *args, **kwargs)  # type: ignore[arg-type]

    return call


def allowed_prefixes() -> tuple[str, ...]:
    """The prefixes allowed in a `_target_`: xformer's and those of the plugins."""
    return ("xformer.", *(f"{plugin.package}." for plugin in plugins()))


def require_plugins(packages: Iterable[str], what: str) -> None:
    """Refuse what needs a plugin that is not installed or not named.

    Args:
        packages: the plugins that it was made with.
        what: the object that needs them, for the message.

    Raises:
        ConfigError: naming the first missing one.
    """
    there = {plugin.package for plugin in plugins()}
    for package in packages:
        if package in there:
            continue
        if not _PACKAGE.fullmatch(package) or _spec(package.partition(".")[0]) is None:
            raise ConfigError(f"{what} needs the plugin {package}, which is not installed here.")
        raise ConfigError(
            f"{what} needs the plugin {package}, which is not named: add plugins=[{package}] if you trust it."
        )


def _listed(text: str) -> list[str]:
    """The packages of `[a,b]` or `a,b`."""
    packages = [package.strip(" '\"") for package in text.strip().removeprefix("[").removesuffix("]").split(",")]
    return [package for package in packages if package]


def _settings() -> Path:
    return user_config() / "config.yaml"


def _of_settings() -> list[str]:
    """The plugins named in the user's settings file."""
    if not _settings().is_file():
        return []
    try:
        content = OmegaConf.to_container(OmegaConf.load(_settings()))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_settings()} cannot be read: {str(error).splitlines()[0]}.") from error
    named = content.get("plugins") if isinstance(content, dict) and set(content) == {"plugins"} else None
    if not isinstance(named, list) or not all(isinstance(package, str) for package in named):
        raise ConfigError(f"{_settings()} holds one key, a list of packages: plugins: [mypkg].")
    return [str(package) for package in named]


def _of_entry_points() -> list[str]:
    """The plugins that were installed as such."""
    return [found.value for found in metadata.entry_points(group=GROUP)]


def _plugin(package: str, source: str) -> Plugin:
    """Find a plugin's package without importing it.

    Raises:
        ConfigError: the package does not exist, or has no options.
    """
    if not _PACKAGE.fullmatch(package):
        raise ConfigError(f"{source}: {package} is not the name of a package; name it as Python imports it.")
    spec = _spec(package)
    if spec is None:
        raise ConfigError(
            f"{source}: the plugin {package} cannot be imported: there is no such package here; install it, or put the "
            "folder that holds it on PYTHONPATH."
        )
    folders = [Path(folder) / "conf" for folder in spec.submodule_search_locations or ()]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"{source}: the plugin {package} has no folder conf/ beside its __init__.py; options go there, such as "
            "conf/attention/NAME.yaml, and into the package's package-data."
        )
    return Plugin(package, found)


def _spec(package: str) -> ModuleSpec | None:
    """The import spec of a package; a top-level package is not imported for that."""
    try:
        return find_spec(package)
    except (ImportError, ValueError):
        return None


def _refuse_collisions(found: Iterable[Plugin]) -> None:
    """Refuse options in unknown groups and options that exist twice.

    Raises:
        ConfigError: with the plugin, the file and what would work.
    """
    known = {folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"}
    ours = (file for group in known for file in (CONF / group).rglob("*.yaml"))
    owners = {file.relative_to(CONF): "xformer" for file in ours}
    for plugin in found:
        for file in sorted(plugin.conf.rglob("*.yaml")):
            option = file.relative_to(plugin.conf)
            if option.parts[0] not in known:
                raise ConfigError(
                    f"the plugin {plugin.package} has conf/{option}, which is not in a known group; the groups are "
                    f"{', '.join(sorted(known))}."
                )
            if option in owners:
                raise ConfigError(
                    f"the plugin {plugin.package} has conf/{option}, and {owners[option]} has an option of that name "
                    "already: rename the file."
                )
            owners[option] = plugin.package


def _refuse_unreadable(found: Iterable[Plugin]) -> None:
    """Refuse option files that are not valid YAML, even if the command does not use them.

    Raises:
        ConfigError: with the file and the line.
    """
    for plugin in found:
        for file in sorted(plugin.conf.rglob("*.yaml")):
            try:
                readable = isinstance(OmegaConf.load(file), DictConfig)
            except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(
                    f"the plugin {plugin.package} has {file}, which cannot be read as YAML: {reason.rstrip('.')}; mend "
                    "or remove the file."
                ) from error
            if not readable:
                raise ConfigError(
                    f"the plugin {plugin.package} has {file}, which does not hold keys and values: write key: value."
                )

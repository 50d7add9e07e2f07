"""The groups of `conf/` and their options, ours and the plugins', and how the command line spells them."""

import difflib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xformer.config.plugins import CONF as CONF
from xformer.config.plugins import cached_by_plugins, conf_folders

_LISTED = 12


def groups() -> dict[str, list[str]]:
    """Every group of `conf/` and its options."""
    return {
        folder.name: sorted(file.stem for conf in conf_folders() for file in (conf / folder.name).glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }


@functools.cache
def defaults() -> dict[str, tuple[str, str | None]]:
    """The defaults of `train.yaml`: for each key that holds an option, its group and the default option."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml").defaults, resolve=False)
    chosen = [item for entry in entries if isinstance(entry, dict) for item in entry.items()]
    found = [(str(key).partition("@"), option) for key, option in chosen]
    return {slot or group: (group, option) for (group, _, slot), option in found if group in groups()}


def slots() -> dict[str, str]:
    """The additional slots of a configuration, such as `decoder_attention`, and the group of each."""
    return {key: group for key, (group, _) in defaults().items() if key != group}


def slot_default(key: str, choices: dict[str, str]) -> str:
    """The default option of a slot; it may follow another group's choice."""
    default = str(defaults()[key][1])
    return choices[default[2:-1]] if default.startswith("${") else default


def command_line_key(key: str) -> str:
    """A key in command-line form: `attention@decoder_attention` for a slot."""
    return f"{slots()[key]}@{key}" if key in slots() else key


def nearest(name: str, options: Iterable[str], prefix: str = "") -> str:
    """A hint for a misspelt name: `did you mean x? Valid: x, y, z.`; a long list is left out.

    Args:
        name: as typed.
        options: the valid names.
        prefix: to write before each of them, such as `attention.`.
    """
    options = sorted(options)
    if not options:
        return "it has none."
    near = difflib.get_close_matches(name, options, n=1)
    listed = f"Valid: {', '.join(f'{prefix}{option}' for option in options)}."
    if not near:
        return listed
    return f"did you mean {prefix}{near[0]}?" + (f" {listed}" if len(options) <= _LISTED else "")


def option_file(group: str, option: str) -> Path | None:
    """The file of an option; None where there is no such option."""
    files = (conf / group / f"{option}.yaml" for conf in conf_folders())
    return next((file for file in files if file.is_file()), None)


def option_files() -> Iterator[Path]:
    """The file of every option."""
    for conf in conf_folders():
        for group in groups():
            yield from sorted((conf / group).rglob("*.yaml"))


def option_nodes(group: str) -> Iterator[tuple[str, DictConfig]]:
    """Every option of a group and its node, also for files that set several groups."""
    for option in groups()[group]:
        found = load_option(group, option)
        yield option, found.get(group, found)


def load_option(group: str, option: str) -> DictConfig:
    """Load an option's file, merged over the files of the same group that it extends."""
    file = option_file(group, option)
    assert file is not None, f"{group}={option}"
    found = OmegaConf.load(file)
    assert isinstance(found, DictConfig)
    extended = [
        load_option(group, name) for name in found.pop("defaults", []) if isinstance(name, str) and name != "_self_"
    ]
    merged = OmegaConf.merge(*extended, found)
    assert isinstance(merged, DictConfig)
    return merged


@cached_by_plugins
def callback_options() -> DictConfig:
    """Every callback option in `conf/`, by its key (Hydra records no choice for them, as several may be set)."""
    merged = OmegaConf.merge(*(node for _, node in option_nodes("callbacks")))
    assert isinstance(merged, DictConfig)
    return merged

"""The settings of a benchmark: `conf/benchmark.yaml`, the quick ones on top of it, then the command line's."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.configuration import CONF, nearest
from xformer.errors import ConfigError


def settings(question: str, overrides: Sequence[str], *, quick: bool) -> DictConfig:
    """Compose and check.

    Args:
        question: whose quick settings are meant.
        overrides: as typed.
        quick: whether to take them.

    Raises:
        ConfigError: a key that there is not, or something that is no `key=value`.
    """
    config = OmegaConf.load(CONF / "benchmark.yaml")
    assert isinstance(config, DictConfig)
    brief = config.pop("quick")
    OmegaConf.set_struct(config, True)
    if quick:
        config.merge_with(brief[question])
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(
                f"{override} is no setting; write key=value, with a key of {', '.join(map(str, config))}."
            )
        before = config.get(key) if key in config else None
        try:
            config.merge_with_dotlist([override])
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{key}={value} cannot be set in conf/benchmark.yaml; {nearest(key.split('.')[0], map(str, config))}"
            ) from error
        if isinstance(before, float) and isinstance(config[key], int):
            config[key] = float(config[key])
        if before is not None and not isinstance(config[key], type(before)):
            raise ConfigError(f"{override} has the wrong type: like {key}={before}, it is a {type(before).__name__}.")
    return config


def entries(config: DictConfig, key: str, *needed: str) -> list[dict[str, Any]]:
    """The entries of a list of the settings.

    Args:
        config: the settings.
        key: of the list.
        needed: what each entry has to say.

    Raises:
        ConfigError: an entry does not.
    """
    found = OmegaConf.to_container(config[key])
    assert isinstance(found, list)
    for entry in found:
        missing = [name for name in needed if not isinstance(entry, dict) or name not in entry]
        if missing:
            raise ConfigError(f"{key} has {entry}, which lacks {missing[0]}; an entry says {', '.join(needed)}.")
    return found

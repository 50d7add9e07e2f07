"""The callback settings that cannot change a run's result, as the callbacks' classes declare.

A callback that only observes or stores declares it with a class attribute, `changes_result = False`; otherwise it may
change the result. Lightning's callbacks cannot declare it and are listed here.
"""

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from omegaconf import OmegaConf

from xformer.config.groups import callback_options
from xformer.config.validate import target

_WATCHING = (LearningRateMonitor, ProgressBar)
_STORING = ("dirpath", "enable_version_counter")
"""Parameters of a ModelCheckpoint that only decide the location of its files."""


def find_ignored_keys(callbacks: Mapping[str, Any]) -> list[str]:
    """The keys below `callbacks` that cannot change a result; a callback that was removed is the one of `conf/`.

    Raises:
        ConfigError: a class cannot be imported.
    """
    found: list[str] = []
    for name, node in callbacks.items():
        node = _options().get(name) if node is None else node
        if node is not None and "_target_" in node:
            found += _keys(f"callbacks.{name}", node)
    return found


@functools.cache
def option_ignored_keys() -> frozenset[str]:
    """The ignored keys of all callback options in `conf/`."""
    return frozenset(find_ignored_keys(_options()))


def _options() -> Mapping[str, Any]:
    return cast(Mapping[str, Any], OmegaConf.to_container(callback_options(), resolve=False))


def _keys(key: str, node: Mapping[str, Any]) -> list[str]:
    made = target(OmegaConf.create({"_target_": node["_target_"]}))
    kind: Any = made if inspect.isclass(made) else typing.get_type_hints(made).get("return", object)
    if issubclass(kind, ModelCheckpoint) and "monitor" in node:
        return [f"{key}.{name}" for name in _STORING]
    # Without a monitored metric it keeps no best weights, but only a checkpoint to resume from.
    declared = getattr(kind, "changes_result", not issubclass(kind, (*_WATCHING, ModelCheckpoint)))
    return [] if declared else [key]

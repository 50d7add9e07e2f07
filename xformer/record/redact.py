"""The resolved config without what came from the environment: a key in a variable must not reach a logger or a disk."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

# A text no config contains; it becomes ${oc.env:KEY} only after the last interpolation has been resolved.
_MARK = re.compile("\x02env:([^\x03]*)\x03")


class _Environment:
    """Stands in for `oc.env`: hands out a mark in place of the variable's value, and counts how often."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, key: str, default: Any = None) -> str:
        self.reads += 1
        return f"\x02env:{key}\x03"


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved except what comes from the environment.

    A value that reads `${oc.env:KEY}`, itself, inside a longer text or through other keys, keeps that text where the
    variable's value would stand. What cannot be resolved here keeps its own text: a missing value, `${hydra:...}`
    outside a Hydra run, a resolver that fails or that consumes a variable (`${length:${oc.env:KEY}}`).

    Args:
        config: The root config; it is not changed.
    """
    # A fresh copy has no resolver cache, which could hold a variable's value from an earlier access.
    copy = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(copy, DictConfig)
    environment = _Environment()
    with _in_place_of_env(environment):
        plain: dict[str, Any] = _plain(copy, environment)
    return plain


@contextmanager
def _in_place_of_env(environment: _Environment) -> Iterator[None]:
    OmegaConf.register_new_resolver("oc.env", environment, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _plain(node: Any, environment: _Environment) -> Any:
    if isinstance(node, DictConfig):
        return {_text(key): _item(node, key, environment) for key in node}
    if isinstance(node, ListConfig):
        return [_item(node, index, environment) for index in range(len(node))]
    if isinstance(node, Enum):
        return node.name
    if isinstance(node, (Path, bytes)):
        return str(node)
    return _MARK.sub(r"${oc.env:\1}", node) if isinstance(node, str) else node


def _item(container: DictConfig | ListConfig, key: Any, environment: _Environment) -> Any:
    before = environment.reads
    try:
        value = container[key]
    except OmegaConfBaseException:
        return _unresolved(container, key)
    consumed = environment.reads > before and not (isinstance(value, str) and _MARK.search(value))
    return _unresolved(container, key) if consumed else _plain(value, environment)


def _unresolved(container: DictConfig | ListConfig, key: Any) -> Any:
    raw: Any = container._get_node(key)
    return raw._value()


def _text(key: Any) -> Any:
    return key.name if isinstance(key, Enum) else key

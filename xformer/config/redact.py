"""Redaction: keeps secrets, recognised by their key or their value, off the disk, the loggers and the screen.

A secret is a value of a key such as `api_key`, `password` or `hf_token`, or the value of an environment variable with
such a name, wherever it occurs. The first becomes `***`, the second `${oc.env:NAME}`, by which a configuration can
refer to it.
"""

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

MASK = "***"
_SHORTEST = 6  # a shorter value would be found in ordinary words
_WORDS = {
    "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "apikey", "authorization",
}  # fmt: skip
_NO_TOKENS = {  # whose tokens are those of a language
    "per", "unk", "unknown", "pad", "padding", "mask", "eos", "bos", "cls", "class", "sep", "start", "end", "first",
    "last", "next", "new", "special",
}  # fmt: skip
_LOCATIONS = {"file", "dir", "directory", "path", "name", "sock"}
_OF_KEYS = {"api", "access", "private", "secret", "auth", "signing", "encryption", "storage", "account"}
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_KEY, _VALUE = r"[+~]{0,2}[\w./@-]{0,200}\w", r"[^\s'\",;)\]}]+(?:,(?![+~]*[\w./@-]+=)[^\s'\",;)\]}]+)*"
_ASSIGNED = re.compile(rf"(?P<key>{_KEY})(?P<is>=)(?P<value>\"[^\"]*\"|'[^']*'|\$\{{[^}}]*\}}|{_VALUE})")
# In prose "The secret: nobody knew" is no assignment; a quoted key is one, and so is a key of several words.
_MAPPED = re.compile(
    r"(?P<key>(?P<quote>[\"'])[\w.-]+(?P=quote)|\b[A-Za-z]+_\w+)(?P<is>\s*:\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|\$\{[^}]*\}|[^\s'\",;)\]}]+)"
)
_OVERRIDE = re.compile(rf"(?P<key>{_KEY})=(?P<value>.*)", re.DOTALL)
_LOGIN = re.compile(r"(?P<before>\w://[^/\s:@'\"]*:)(?!\$\{|\*\*\*)[^/\s@'\"]+@")
_NO_SECRET = re.compile(r"['\"]?(|null|None|\?\?\?|\*\*\*|true|false|True|False|\$\{[^}]*\})['\"]?")


def is_secret(name: str) -> bool:
    """Whether a key or variable of this name holds a secret: `wandb.api_key` does, `tokens_per_batch` does not."""
    parts = [part.lower() for part in _PARTS.findall(re.split(r"[./]", name)[-1])]
    if not parts or parts[-1] in _LOCATIONS:
        return False
    if _WORDS & {*parts} or (parts[-1] == "token" and not _NO_TOKENS & {*parts}):
        return True
    return any(part == "key" and before in _OF_KEYS for before, part in pairwise(parts))


def redact(value: Any) -> Any:
    """A copy of a value without secrets, for strings, mappings and lists at any depth.

    A text that is one override is taken as one, `logger.wandb.api_key=all of this`; in a longer one `key=value` and
    `"key": "value"` are found. Whatever is no text stays as it is, unless its key says that it is secret.
    """
    if isinstance(value, str):
        override = _OVERRIDE.fullmatch(value)
        if override and is_secret(override["key"]) and not _NO_SECRET.fullmatch(override["value"]):
            return f"{override['key']}={MASK}"
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {key: MASK if _is_hidden(key, item) else redact(item) for key, item in value.items()}
    return [redact(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_hidden(key: Any, item: Any) -> bool:
    holds_one = isinstance(item, str | int | float) and not _NO_SECRET.fullmatch(str(item))
    return holds_one and isinstance(key, str) and is_secret(key)


def _redact_text(text: str) -> str:
    for value, name in _values():
        if value in text:
            text = text.replace(value, f"${{oc.env:{name}}}")
    for found in (_ASSIGNED, _MAPPED):
        text = found.sub(_masked, text)
    return _LOGIN.sub(rf"\g<before>{MASK}@", text)


def _masked(found: re.Match[str]) -> str:
    secret = is_secret(found["key"].strip("\"'")) and not _NO_SECRET.fullmatch(found["value"])
    return f"{found['key']}{found['is']}{MASK}" if secret else found[0]


def _values() -> list[tuple[str, str]]:
    """The values of the environment's secret variables and their names, longer ones first: one may hold another."""
    found = ((value, name) for name, value in os.environ.items() if len(value) >= _SHORTEST and is_secret(name))
    return sorted(found, key=lambda pair: -len(pair[0]))


class RedactedStream:
    """A wrapper around a text stream that redacts whatever is written to it.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the redacted text."""
        self.stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them one by one."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def redact_streams() -> None:
    """Redact standard output and error from here on, including tracebacks and output of Hydra and Lightning."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))


class RedactingFormatter(logging.Formatter):
    """A log formatter that redacts records, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record without secrets."""
        text: str = redact(super().format(record))
        return text


def redact_file(file: Path) -> None:
    """Redact a YAML file in place, if it exists and holds a secret."""
    if not file.is_file():
        return
    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    redacted = redact(content)
    if redacted != content:
        staged = file.with_suffix(".tmp")
        staged.write_text(OmegaConf.to_yaml(OmegaConf.create(redacted)), encoding="utf-8")
        os.replace(staged, file)


# A text no config contains; it becomes ${oc.env:KEY} only after the last interpolation has been resolved.
_MARK = re.compile("\x02env:([^\x03]*)\x03")


class _Environment:
    """A replacement for `oc.env` that returns a marker instead of the variable's value, and counts the calls."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, key: str, default: Any = None) -> str:
        self.reads += 1
        return f"\x02env:{key}\x03"


def resolved_config(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved except what comes from the environment.

    A value that reads `${oc.env:KEY}`, itself, inside a longer text or through other keys, keeps that text where the
    variable's value would stand. What cannot be resolved here keeps its own text: a missing value, `${hydra:...}`
    outside a Hydra run, a resolver that fails or that consumes a variable (`${length:${oc.env:KEY}}`). A secret that
    stands there as a literal is masked.

    Args:
        config: The root config; it is not changed.
    """
    # A fresh copy has no resolver cache, which could hold a variable's value from an earlier access.
    copy = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(copy, DictConfig)
    environment = _Environment()
    with _in_place_of_env(environment):
        plain: dict[str, Any] = redact(_plain(copy, environment))
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

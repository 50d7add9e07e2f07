"""Value types of benchmark settings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xformer.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A type of values, with a description and a check.

    Attributes:
        words: a description, as in "it has to be ...".
        fits: whether a value is of this type.
    """

    words: str
    fits: Callable[[Any], bool]

    def check(self, name: str, value: Any) -> None:
        """Refuse an invalid value.

        Args:
            name: the name of the setting, for the message.
            value: the value to check.

        Raises:
            ConfigError: naming both, and valid values.
        """
        if not self.fits(value):
            raise ConfigError(f"{name}={value} is not valid; it has to be {self.words}.")


def one_of(*options: str) -> Kind:
    """A type of values: one of a few words."""
    return Kind(f"one of {', '.join(options)}", lambda value: value in options)


def non_empty_list(kind: Kind) -> Kind:
    """A type of values: a list that is not empty."""
    return Kind(
        f"a list of at least one, each of them {kind.words}",
        lambda value: isinstance(value, list) and bool(value) and all(map(kind.fits, value)),
    )


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _is_nanogpt(value: Any) -> bool:
    return value is None or (isinstance(value, str) and (Path(value).is_file() or (Path(value) / "model.py").is_file()))


COUNT = Kind("a whole number, 1 or more", lambda value: type(value) is int and value > 0)
SECONDS = Kind("a number, 0 or more", lambda value: type(value) in (int, float) and 0 <= value < math.inf)
GOAL = Kind(
    "a number above 0, or null", lambda value: value is None or (type(value) in (int, float) and 0 < value < math.inf)
)
TRUTH = Kind("true or false", lambda value: type(value) is bool)
COMPILE = Kind("false, true or reduce-overhead", lambda value: type(value) is bool or value == "reduce-overhead")
NAMES = Kind("a list of names, or null", _is_names)
WORD = Kind("a word, such as task=language_modeling", lambda value: isinstance(value, str))
DTYPE = one_of("float32", "bfloat16", "float16", "float64")
AUTOCAST = one_of("float32", "bfloat16", "float16")
NANOGPT = Kind("nanoGPT's model.py, or the directory that it lies in, or null", _is_nanogpt)
ENTRIES = Kind(
    "a list, each of them an entry such as {attention: full}",
    lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
)
"""Of which there may be none."""
ENTRY = Kind("an entry such as {attention: full}", lambda value: isinstance(value, dict))

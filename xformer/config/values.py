"""Checking values against type annotations, with a clear message for those that do not match.

Constructors state types and ranges where their parameters stand, in the vocabulary of annotated-types:
`rank: Annotated[int, Ge(1)]`. Two rules hold for every number without being stated: it is finite, and an integer has 64
bits. What relates two values is the constructor's own business.
"""

import inspect
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from beartype import BeartypeConf
from beartype.door import is_bearable

from xformer.errors import ConfigError

_NUMBERS = BeartypeConf(is_pep484_tower=True)
_LARGEST = 2**63 - 1
_LONGEST = 80
_NAMES: dict[Any, str] = {
    NoneType: "null", int: "int", float: "float", str: "str", bool: "bool", dict: "a mapping", list: "a list"
}  # fmt: skip


def check_value(path: str, value: Any, hint: Any) -> None:
    """Compare a plain value with an annotation.

    Args:
        path: the key, to name in the message.
        value: of scalars, lists and dictionaries.
        hint: a type, with the range in `Annotated`.

    Raises:
        ConfigError: naming the key, the value and what would be valid.
    """
    problem = _problem(value, hint)
    if problem is not None:
        raise ConfigError(f"{path}={format_value(value)} {problem}.")


def format_value(value: Any) -> str:
    """A value in command-line form, shortened if it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def describe_annotation(hint: Any) -> str:
    """An annotation in words: `int at least 1 or null`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{describe_annotation(arguments[0])} {_range(arguments[1:])}"
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(describe_annotation(branch) for branch in arguments)
    if origin in (list, Sequence):
        return f"a list of {describe_annotation(arguments[0])}"
    if origin in (dict, Mapping) or typing.is_typeddict(hint):
        return "a mapping"
    return _NAMES.get(hint, "a part with a _target_") if inspect.isclass(hint) or callable(hint) else str(hint)


def _problem(value: Any, hint: Any) -> str | None:
    """What is wrong with a value, as the end of a sentence; None if the value is valid."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _problem(value, arguments[0]) or _outside(value, arguments[1:])
    if origin in (Union, UnionType):
        problems = {branch: _problem(value, branch) for branch in arguments}
        if None in problems.values():
            return None
        of_its_kind = [problem for branch, problem in problems.items() if problem and _is(value, branch)]
        return "".join([of_its_kind[0], *_named(arguments)]) if of_its_kind else _wrong(value, hint)
    if not _is(value, hint):
        return _wrong(value, hint)
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return f"must be at most {_LARGEST}" if value > 0 else f"must be at least -{_LARGEST}"
    return _problem_inside(value, origin, arguments, hint)


def _named(branches: Iterable[Any]) -> Iterator[str]:
    """The literal values allowed beside a range, as the end of a sentence: `, or auto`."""
    for branch in branches:
        names = typing.get_args(branch) if typing.get_origin(branch) is Literal else ["null"] * (branch is NoneType)
        yield from (f", or {name}" for name in names)


def _problem_inside(value: Any, origin: Any, arguments: tuple[Any, ...], hint: Any) -> str | None:
    if typing.is_typeddict(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        if set(value) != set(hints):
            return f"must have the keys {', '.join(hints)} and no others"
        inside = [(f"{key}={format_value(value[key])}", value[key], hints[key]) for key in hints]
    elif origin in (list, Sequence) and not isinstance(value, str):
        inside = [(format_value(element), element, arguments[0]) for element in value]
    elif origin in (dict, Mapping):
        inside = [(f"{key}={format_value(element)}", element, arguments[1]) for key, element in value.items()]
    else:
        return None
    problems = ((name, _problem(element, wanted)) for name, element, wanted in inside)
    return next((f"holds {name}, which {problem}" for name, problem in problems if problem is not None), None)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value has a type; elements and ranges are checked separately."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _is(value, typing.get_args(hint)[0])
    if isinstance(value, bool) and hint in (int, float):  # which Python takes for a number
        return False
    if origin in (list, Sequence, dict, Mapping):
        return isinstance(value, origin) and not (origin is Sequence and isinstance(value, str))
    if typing.is_typeddict(hint):
        return isinstance(value, dict)
    return bool(is_bearable(value, hint, conf=_NUMBERS))


def _wrong(value: Any, hint: Any) -> str:
    found = _NAMES.get(type(value), type(value).__name__)
    return f"has the wrong type: {describe_annotation(hint)} is expected, got {found}"


_RULES: dict[type, tuple[str, Any]] = {
    Ge: ("at least {rule.ge}", lambda value, rule: value >= rule.ge),
    Gt: ("above {rule.gt}", lambda value, rule: value > rule.gt),
    Le: ("at most {rule.le}", lambda value, rule: value <= rule.le),
    Lt: ("below {rule.lt}", lambda value, rule: value < rule.lt),
    MultipleOf: ("a multiple of {rule.multiple_of}", lambda value, rule: value % rule.multiple_of == 0),
    MinLen: ("of length {rule.min_length} at least", lambda value, rule: len(value) >= rule.min_length),
    MaxLen: ("of length {rule.max_length} at most", lambda value, rule: len(value) <= rule.max_length),
}


def _outside(value: Any, metadata: Iterable[Any]) -> str | None:
    rules = [rule for rule in _single(metadata) if type(rule) in _RULES]
    return None if all(_RULES[type(rule)][1](value, rule) for rule in rules) else f"must be {_range(rules)}"


def _range(metadata: Iterable[Any]) -> str:
    rules = [rule for rule in _single(metadata) if type(rule) in _RULES]
    lengths = {getattr(rule, "min_length", getattr(rule, "max_length", None)) for rule in rules}
    if len(rules) == 2 and len(lengths) == 1 and None not in lengths:
        return f"of length {lengths.pop()}"
    return " and ".join(_RULES[type(rule)][0].format(rule=rule) for rule in rules)


def _single(metadata: Iterable[Any]) -> list[Any]:
    """Split constraints into single rules: an `Interval` holds several."""
    return [rule for entry in metadata for rule in (entry if isinstance(entry, GroupedMetadata) else (entry,))]

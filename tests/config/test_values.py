"""Types and ranges are read from the constructors: every bound that one states is kept, and told in a sentence."""

import math
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, GroupedMetadata, Gt, Interval, Le, Len, Lt
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from xformer.config.validate import CONF, _parameters, target
from xformer.config.values import check_value, describe_annotation
from xformer.errors import ConfigError


def _nodes(node: Any) -> Iterator[DictConfig]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield from _nodes(node[key])


def _hints() -> dict[str, Any]:
    """Every parameter that a file of `conf/` can set, `xformer.attention.linformer.Linformer.rank`: its annotation."""
    files = [OmegaConf.load(file) for file in CONF.glob("*/*.yaml") if file.parent.name != "experiment"]
    targets = {str(node._target_): target(node) for file in files for node in _nodes(file)}
    return {f"{name}.{key}": hint for name, found in targets.items() for key, hint in _parameters(found).items()}


HINTS = _hints()


def _accepts(hint: Any, value: Any) -> bool:
    """Another library's reading of an annotation."""
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _beyond(hint: Any) -> Iterator[Any]:
    """A value just outside of each bound."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        step = 1 if arguments[0] is int else 0.25
        for entry in arguments[1:]:
            for rule in entry if isinstance(entry, GroupedMetadata) else (entry,):
                if isinstance(rule, Ge | Le):
                    yield rule.ge - step if isinstance(rule, Ge) else rule.le + step
                elif isinstance(rule, Gt | Lt):
                    yield rule.gt if isinstance(rule, Gt) else rule.lt
        yield from _beyond(arguments[0])
    elif origin is list:
        yield from ([value] for value in _beyond(arguments[0]))
    elif origin is typing.Union or isinstance(hint, typing.types.UnionType):
        yield from (value for branch in arguments for value in _beyond(branch) if not _accepts(hint, value))


BEYOND = [(path, hint, value) for path, hint in HINTS.items() for value in _beyond(hint)]


def test_most_numbers_have_a_range() -> None:
    numbers = [path for path, hint in HINTS.items() if path.startswith("xformer.") and hint in (int, float)]
    assert not numbers
    assert len({path for path, _, _ in BEYOND}) > 100


@pytest.mark.parametrize(("path", "hint", "value"), BEYOND, ids=[f"{path}={value}" for path, _, value in BEYOND])
def test_a_value_beyond_a_bound_is_refused_with_key_value_and_bound(path: str, hint: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_value(path, value, hint)
    told = str(caught.value)
    assert told.startswith(f"{path}={value} ")
    assert told.endswith(".")
    assert "must be" in told
    assert any(character.isdigit() for character in told.split("must be")[1])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 400),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 0.5, 2**31, 10**20, math.nan, math.inf]),
    st.text(max_size=5),
    st.sampled_from(["pre", "post", "mean", "balanced", "norm", "auto"]),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2))
PLAIN = sorted(
    path
    for path, hint in HINTS.items()
    if hint is not Any and "xformer.data.files" not in path and "a part" not in describe_annotation(hint)
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLAIN), VALUES)
def test_what_is_accepted_is_what_pydantic_accepts(path: str, value: Any) -> None:
    """But for the two rules that hold for every number."""
    try:
        check_value(path, value, HINTS[path])
        accepted = True
    except ConfigError:
        accepted = False
    assert accepted is (_accepts(HINTS[path], value) and _finite(value))


def _finite(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < 2**63


@pytest.mark.parametrize(
    ("value", "hint", "sentence"),
    [
        (0, Annotated[int, Ge(1)], "k=0 must be at least 1."),
        (1.0, Annotated[float, Interval(ge=0, lt=1)], "k=1.0 must be at least 0 and below 1."),
        (0, Annotated[int, Ge(1)] | None, "k=0 must be at least 1, or null."),
        ("a", Annotated[int, Ge(1)] | None, "k=a has the wrong type: int at least 1 or null is expected, got str."),
        (True, int, "k=true has the wrong type: int is expected, got bool."),
        ([8, -1], list[Annotated[int, Ge(1)]], "k=[8, -1] holds -1, which must be at least 1."),
        ([0.9], Annotated[list[float], Len(2, 2)], "k=[0.9] must be of length 2."),
        (math.nan, float, "k=nan must be a finite number."),
        (10**20, int, "k=100000000000000000000 must be at most 9223372036854775807."),
        ("x", Literal["a", "b"], "k=x has the wrong type: one of a, b is expected, got str."),
        ("y" * 300, int, f"k={'y' * 80}... has the wrong type: int is expected, got str."),
    ],
)
def test_sentences(value: Any, hint: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_value("k", value, hint)
    assert str(caught.value) == sentence

"""The type of each group's node, and whether what a target makes is of it."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from xformer.architecture.size import Size
from xformer.config.parts import PARTS, is_factory, is_part, produces
from xformer.config.validate import groups
from xformer.core.linear import Linear


def build() -> nn.Linear:
    return nn.Linear(1, 1)


def count() -> int:
    return 1


def unsaid():
    return nn.Linear(1, 1)


def test_every_group_of_parts_has_a_type() -> None:
    assert {*groups()} - {*PARTS} == {"experiment", "debug"}  # which are overrides of all groups


@pytest.mark.parametrize(
    ("hint", "part", "factory"),
    [
        (int, False, False),
        (str, False, False),
        (dict[str, nn.Module], False, False),
        (list[Size], False, False),
        (Size, True, False),
        (nn.Module, True, False),
        (Callable[..., nn.Module], True, True),
        (Callable[[int], nn.Module], True, True),
    ],
    ids=str,
)
def test_an_object_and_a_factory_are_told_from_plain_values(hint: Any, part: bool, factory: bool) -> None:
    assert (is_part(hint), is_factory(hint)) == (part, factory)


@pytest.mark.parametrize(
    ("found", "hint", "fits"),
    [
        (Linear, nn.Linear, True),
        (Linear, Callable[..., nn.Module], True),
        (Size, nn.Module, False),
        (build, nn.Module, True),
        (build, Callable[[], nn.Module], True),
        (count, nn.Module, False),
        (unsaid, nn.Module, True),  # nobody knows
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_a_target_makes_is_of_the_type_or_not(found: Any, hint: Any, fits: bool) -> None:
    assert produces(found, hint) == fits

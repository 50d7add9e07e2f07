"""Ranges of Lightning's parameters: of parameters that there are, and refused before Lightning would accept them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch import Trainer

from xformer.config.lightning_ranges import RANGES
from xformer.config.values import check_value
from xformer.errors import ConfigError


@pytest.mark.parametrize("target", RANGES, ids=lambda target: target.__name__)
def test_every_range_is_of_a_parameter(target: Callable[..., Any]) -> None:
    assert {*RANGES[target]} <= {*inspect.signature(target).parameters}


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("max_steps", [-1, 0, 100], [-2]),
        ("max_epochs", [None, -1, 3], [-2]),
        ("devices", [1, -1, "auto", [0, 1]], [-2, [-1]]),
        ("accumulate_grad_batches", [1], [0]),
        ("gradient_clip_val", [None, 0, 0.5], [-0.5]),
        ("gradient_clip_algorithm", ["norm", "value"], ["mean"]),
        ("limit_val_batches", [1, 0.5, 1.0, None], [0, 0.0, 1.5]),
        ("num_sanity_val_steps", [-1, 0], [-2]),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check_value(key, value, RANGES[Trainer][key])
    for value in bad:
        with pytest.raises(ConfigError, match=key):
            check_value(key, value, RANGES[Trainer][key])

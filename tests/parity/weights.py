"""Builds our model with the weights of another library's, so that only the mathematics can differ."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.contracts.variants import position_factory
from xformer.architecture.size import Size
from xformer.attention.full import Full
from xformer.layers.block import Block

SIZE = Size(d_model=16, layers=2, heads=4, feed_forward=24)


def build(kind: type[nn.Module], max_length: int, **options: Any) -> Any:
    """One of our architectures in float64, which takes embedded tokens."""
    defaults: dict[str, Any] = {
        "size": SIZE,
        "attention": Full,
        "position": position_factory("none"),
        "norm": "pre",
        "norm_layer": "layer",
        "activation": "gelu",
        "dropout": 0.0,
        "stochastic_depth": 0.0,
        "share_layers": False,
        "key_value_heads": None,
        "gradient_checkpointing": False,
    }
    return kind(lambda d_model: nn.Identity(), max_length, **{**defaults, **options}).double().eval()


def randomise(model: nn.Module) -> Any:
    """Their model in float64, with weights large enough for attention to be far from uniform."""
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.5)
    return model


@torch.no_grad()
def copy_linear(ours: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    """Set a linear layer; without a bias, to zero where ours has one."""
    ours.weight.copy_(weight)  # type: ignore[operator, union-attr]
    own = getattr(ours, "bias", None)
    assert bias is None or own is not None
    if own is not None:
        own.copy_(torch.zeros_like(own) if bias is None else bias)


def copy_module(ours: nn.Module, theirs: nn.Module) -> None:
    """Set a linear layer or a norm to another."""
    copy_linear(ours, theirs.weight, getattr(theirs, "bias", None))  # type: ignore[arg-type]


def copy_attention(ours: Any, query: nn.Module, key: nn.Module, value: nn.Module, output: nn.Module) -> None:
    """Set the four projections."""
    for mine, other in zip((ours.query, ours.key, ours.value, ours.output), (query, key, value, output), strict=True):
        copy_module(mine, other)


def blocks(model: nn.Module) -> list[Any]:
    """Our layers, from the first to the last."""
    return [module for module in model.modules() if isinstance(module, Block)]


def positions_of(valid: Tensor) -> Tensor:
    """Counted from each row's first real token."""
    return (valid.long().cumsum(-1) - 1).clamp(min=0)


def padded(lengths: Sequence[int], side: str) -> Tensor:
    """True at real tokens, of rows as long as the longest."""
    longest = max(lengths)
    index, count = torch.arange(longest), torch.tensor(lengths)[:, None]
    return index < count if side == "right" else index >= longest - count


same = partial(torch.testing.assert_close, atol=1e-9, rtol=1e-9)
"""Equal but for the rounding of float64."""
same_but_for_float32 = partial(torch.testing.assert_close, atol=2e-6, rtol=2e-6)
"""Equal but for a step that one of the two computes in float32 whatever the model's type."""

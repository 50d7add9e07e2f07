"""The modules that are timed, ours and torch's, which take the same tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from xformer.attention.base import AttentionContext
from xformer.config.groups import load_option
from xformer.config.validate import instantiate_node
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
from xformer.layers.multi_head import token_mixer
from xformer.position.base import Position, PositionContext


@dataclass(frozen=True)
class Shape:
    """The sizes of one measurement.

    Attributes:
        batch: sequences.
        heads: of queries, keys and values.
        head_dim: the features of one head.
        length: tokens.
        causal: whether later keys are masked.
    """

    batch: int
    heads: int
    head_dim: int
    length: int
    causal: bool

    @property
    def form(self) -> str:
        """`causal` or `bidirectional`."""
        return "causal" if self.causal else "bidirectional"

    @property
    def d_model(self) -> int:
        """The model's width: features of a token."""
        return self.heads * self.head_dim


class Mixing(nn.Module):
    """A variant with its position scheme's bias, from queries, keys and values to mixed values.

    Args:
        settings: `attention`, an option of the group; `position`, likewise; and values that differ from its file.
        shape: the sizes of the tensors.
    """

    def __init__(self, settings: Mapping[str, Any], shape: Shape) -> None:
        super().__init__()
        rest = {key: value for key, value in settings.items() if key not in ("attention", "position", "longest")}
        build = instantiate_node(_option("attention", settings["attention"], rest))
        context = AttentionContext(shape.heads, shape.head_dim, shape.length, shape.length, shape.causal)
        self.mix = build(context)
        self.position = _position(settings.get("position", "none"), shape)
        self.causal = shape.causal
        initialise(self, 0)

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """Compute the mixed values; queries and keys are rotated if the position scheme rotates."""
        mask, bias = _mask(query, self.causal), self.position.bias(0)
        query, key = (self.position.rotate(x, mask.query_positions) for x in (query, key))
        query = query if bias is None else bias.shift(query)
        mixed: Tensor = self.mix(query, key, value, mask=mask, bias=bias)
        return mixed


class Projected(nn.Module):
    """A variant with the projections before and after it, from tokens to tokens."""

    def __init__(self, settings: Mapping[str, Any], shape: Shape) -> None:
        super().__init__()
        context = AttentionContext(shape.heads, shape.head_dim, shape.length, shape.length, shape.causal)
        rest = {key: value for key, value in settings.items() if key not in ("attention", "position", "longest")}
        build = instantiate_node(_option("attention", settings["attention"], rest))
        self.attention = token_mixer(build(context))
        self.position = _position(settings.get("position", "none"), shape)
        self.causal = shape.causal
        initialise(self, 0)

    def forward(self, x: Float[Tensor, "b n d_model"]) -> Float[Tensor, "b n d_model"]:
        """Attend from x to x."""
        attended: Tensor = self.attention(x, mask=_mask(x[:, None], self.causal), position=self.position)
        return attended


class Fused(nn.Module):
    """torch's fused attention alone.

    Args:
        shape: the sizes of the tensors.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = shape.causal

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d)) V."""
        return scaled_dot_product_attention(query, key, value, is_causal=self.causal)


class FusedWithDenseBias(nn.Module):
    """torch's fused attention with a trained dense bias: one number for every pair.

    Args:
        shape: the sizes of the tensors.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape.heads, shape.length, shape.length))
        self.causal = shape.causal

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V."""
        bias: Tensor = self.bias
        if self.causal:
            bias = bias.masked_fill(torch.ones_like(bias[0], dtype=torch.bool).triu(1), float("-inf"))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias[None])


class FusedWithWrittenOutBias(nn.Module):
    """torch's fused attention with a trained bias per distance, as in T5, expanded to every pair.

    Args:
        shape: the sizes of the tensors.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(shape.heads, 2 * shape.length - 1))
        self.causal = shape.causal

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + t[j - i]) V."""
        length = query.shape[2]
        index = torch.arange(length, device=query.device)
        bias = self.table[:, index[None] - index[:, None] + length - 1]
        if self.causal:
            bias = bias.masked_fill(index[None] > index[:, None], float("-inf"))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias[None])


def training_or_forward_step(module: nn.Module, inputs: tuple[Tensor, ...], *, training: bool) -> Callable[[], object]:
    """A step to time: forward alone, or forward and backward to the inputs and all parameters in use."""
    if not training:

        def forward() -> object:
            with torch.no_grad():
                return module(*inputs)

        return forward
    leaves = [*inputs, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    target = torch.ones_like(inputs[0])

    def forward_and_backward() -> object:
        return torch.autograd.grad(module(*inputs), leaves, target, allow_unused=True)

    return forward_and_backward


def _option(group: str, name: str, settings: Mapping[str, Any]) -> DictConfig:
    node = load_option(group, name)
    OmegaConf.set_struct(node, True)
    merged = OmegaConf.merge(node, dict(settings))
    assert isinstance(merged, DictConfig)
    return merged


def _position(name: str, shape: Shape) -> Position:
    context = PositionContext(shape.d_model, shape.heads, shape.head_dim, 1, shape.length, shape.causal)
    position: Position = instantiate_node(_option("position", name, {}))(context)
    return position


def _mask(x: Tensor, causal: bool) -> Mask:
    return Mask.consecutive(0, x.shape[2], causal=causal, device=x.device)

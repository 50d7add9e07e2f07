"""Installed implementations of the same variants by other libraries, on the same tensors.

A peer of queries, keys and values is compared with our `Mixing`; one that has its own projections with our `Projected`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xformer.benchmark.modules import FusedWithDenseBias, FusedWithWrittenOutBias, Shape
from xformer.core import devices

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True)
class Peer:
    """An implementation of a variant by another library.

    Attributes:
        name: the name of the implementation.
        package: the package that must be installed.
        ours: the settings with which our variant computes the same function.
        build: builds the peer for a shape.
        projects: whether it takes tokens and has its own projections.
        causal: the forms that it supports.
        shortest: the minimum length, if its pattern needs one.
        multiple: a number that must divide the length.
        longest: the maximum length, if it would run out of memory.
        needs_cuda: whether it trains only on a CUDA device.
    """

    name: str
    package: str
    ours: Mapping[str, Any]
    build: Callable[[Shape], nn.Module]
    projects: bool = False
    causal: tuple[bool, ...] = (False, True)
    shortest: int = 1
    multiple: int = 1
    longest: int = 1 << 30
    needs_cuda: bool = False

    def make(self, shape: Shape) -> nn.Module:
        """Build the implementation, without its own deprecation warnings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.build(shape)

    def supports(self, shape: Shape) -> bool:
        """Whether its package is installed and supports this form and length."""
        fits = self.shortest <= shape.length <= self.longest and shape.length % self.multiple == 0
        runs = find_spec(self.package) is not None and (devices.is_available() or not self.needs_cuda)
        return fits and shape.causal in self.causal and runs


def _local_attention(shape: Shape) -> nn.Module:
    from local_attention import LocalAttention

    ahead = 0 if shape.causal else 1
    return _Called(
        LocalAttention(
            window_size=64,
            causal=shape.causal,
            look_backward=1,
            look_forward=ahead,
            dropout=0.0,
            autopad=True,
            use_rotary_pos_emb=False,
        )
    )


def _performer_pytorch(shape: Shape) -> nn.Module:
    from performer_pytorch import FastAttention

    return _Called(FastAttention(dim_heads=shape.head_dim, nb_features=256, causal=shape.causal))


def _linformer(shape: Shape) -> nn.Module:
    from linformer import LinformerSelfAttention

    sizes = {"dim": shape.d_model, "seq_len": shape.length, "heads": shape.heads, "dim_head": shape.head_dim}
    return _Called(LinformerSelfAttention(**sizes, k=256))


def _bigbird(shape: Shape) -> nn.Module:
    attention, masks = _bigbird_parts(shape)
    return _with_output(_Called(attention, **masks), shape)


def _bigbird_parts(shape: Shape) -> tuple[Any, dict[str, Tensor]]:
    """BigBird's module, in train mode, as its blocks are random only then, and its masks."""
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    config = BigBirdConfig(
        hidden_size=shape.d_model,
        num_attention_heads=shape.heads,
        block_size=64,
        num_random_blocks=3,
        max_position_embeddings=max(4096, shape.length),
        attention_probs_dropout_prob=0.0,
    )
    attention = BigBirdBlockSparseAttention(config, seed=0).train()  # type: ignore[no-untyped-call]
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(
        torch.ones(shape.batch, shape.length), 64
    )
    masks = {"band_mask": band, "from_mask": rows, "to_mask": columns}
    return attention, {**masks, "from_blocked_mask": blocked, "to_blocked_mask": blocked}


class BigBirdAlone(nn.Module):
    """The part of transformers' BigBird between its projections.

    Args:
        shape: the sizes of the tensors.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        attention, self.masks = _bigbird_parts(shape)
        self.attend: Any = attention.bigbird_block_sparse_attention
        self.numbers = {
            "n_heads": shape.heads,
            "n_rand_blocks": attention.num_random_blocks,
            "attention_head_size": shape.head_dim,
            "from_block_size": attention.block_size,
            "to_block_size": attention.block_size,
            "batch_size": shape.batch,
            "from_seq_len": shape.length,
            "to_seq_len": shape.length,
        }

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """Compute the sparse softmax(Q K^T / sqrt(d)) V."""
        masks = {name: _beside(query, mask) for name, mask in self.masks.items()}
        plan = {"seed": 0, "plan_from_length": None, "plan_num_rand_blocks": None}
        mixed: Tensor = self.attend(query, key, value, **masks, **self.numbers, **plan)[0]
        return mixed.transpose(1, 2)


def _longformer(shape: Shape) -> nn.Module:
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=shape.d_model,
        num_attention_heads=shape.heads,
        num_hidden_layers=1,
        attention_window=[128],
        attention_probs_dropout_prob=0.0,
    )
    nothing = torch.zeros(shape.batch, shape.length)
    called = _Called(
        LongformerSelfAttention(config, layer_id=0),  # type: ignore[no-untyped-call]
        attention_mask=nothing,
        is_index_masked=nothing.bool(),
        is_index_global_attn=nothing.bool(),
        is_global_attn=False,
    )
    return _with_output(called, shape)


def _x_transformers(shape: Shape) -> nn.Module:
    from x_transformers.x_transformers import Attention

    return _Called(
        Attention(dim=shape.d_model, heads=shape.heads, dim_head=shape.head_dim, causal=shape.causal, flash=True)
    )


class FlexWindow(nn.Module):
    """torch's flex_attention with a window of 64 neighbours on each side, on the left alone where it is causal.

    Args:
        shape: the sizes of the tensors.
        compiled: whether to compile it; uncompiled it is only a reference.
    """

    def __init__(self, shape: Shape, *, compiled: bool = True) -> None:
        super().__init__()
        from torch.nn.attention.flex_attention import flex_attention

        self.attend: Any = torch.compile(flex_attention) if compiled else flex_attention
        self.causal, self.mask = shape.causal, cast("BlockMask | None", None)

    def forward(
        self, query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d)) V within the window."""
        if self.mask is None:
            from torch.nn.attention.flex_attention import create_block_mask

            after = 0 if self.causal else 64
            n, reads = query.shape[2], lambda b, h, q, k: (k - q <= after) & (q - k <= 64)
            self.mask = create_block_mask(reads, None, None, n, n, device=str(query.device))
        mixed: Tensor = self.attend(query, key, value, block_mask=self.mask)
        return mixed


class _Called(nn.Module):
    """A module with fixed further arguments, which returns its first output."""

    def __init__(self, module: nn.Module, **arguments: Any) -> None:
        super().__init__()
        self.module, self.arguments = module, arguments

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the module."""
        found = self.module(*inputs, **{name: _beside(inputs[0], value) for name, value in self.arguments.items()})
        output: Tensor = found[0] if isinstance(found, tuple) else found
        return output


def _with_output(attention: nn.Module, shape: Shape) -> nn.Module:
    """Add the output projection, which transformers keeps in a separate module."""
    return nn.Sequential(attention, nn.Linear(shape.d_model, shape.d_model))


def _beside(x: Tensor, value: Any) -> Any:
    """Move a mask to the device and, unless it is boolean, to the type of what it masks."""
    if not isinstance(value, Tensor):
        return value
    return value.to(x.device, x.dtype) if value.is_floating_point() else value.to(x.device)


_WINDOW = {"attention": "local", "window": 64}
_BIGBIRD = {"attention": "bigbird", "block": 64, "random_blocks": 3}
PEERS = [
    Peer("local-attention", "local_attention", _WINDOW, _local_attention),
    Peer(
        "Longformer (transformers)", "transformers", _WINDOW, _longformer, projects=True, causal=(False,), multiple=128
    ),
    Peer(
        "BigBird alone (transformers)",
        "transformers",
        _BIGBIRD,
        BigBirdAlone,
        causal=(False,),
        shortest=1024,
        multiple=64,
    ),
    Peer(
        "BigBird (transformers)",
        "transformers",
        _BIGBIRD,
        _bigbird,
        projects=True,
        causal=(False,),
        shortest=1024,
        multiple=64,
    ),
    Peer(
        "linformer (lucidrains)",
        "linformer",
        {"attention": "linformer", "rank": 256, "sharing": "headwise"},
        _linformer,
        projects=True,
        causal=(False,),
    ),
    Peer("performer-pytorch", "performer_pytorch", {"attention": "performer", "features": 256}, _performer_pytorch),
    Peer("x-transformers", "x_transformers", {"attention": "full"}, _x_transformers, projects=True),
    Peer("torch flex_attention", "torch", _WINDOW, FlexWindow, needs_cuda=True),
    Peer(
        "torch fused, dense trained bias",
        "torch",
        {"attention": "full", "position": "t5"},
        FusedWithDenseBias,
        longest=4096,
    ),
    Peer(
        "torch fused, T5's bias written out",
        "torch",
        {"attention": "full", "position": "t5"},
        FusedWithWrittenOutBias,
        longest=4096,
    ),
]
"""All peers, each with the settings of our variant."""

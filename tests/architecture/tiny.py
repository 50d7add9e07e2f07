"""Tiny architectures, and torch's own layers with the same weights."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tests.contracts.variants import attention_factory, position_factory
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.architecture.size import Size
from xformer.architecture.stack import Stack
from xformer.architecture.tower import Tower
from xformer.core.embedding import Embedding
from xformer.layers.initialise import initialise
from xformer.layers.multi_head import MultiHeadAttention

D_MODEL, HEADS, LAYERS, HIDDEN, LENGTH, VOCABULARY = 16, 4, 2, 24, 16, 11
OPTIONS: dict[str, Any] = {
    "norm": "pre",
    "norm_layer": "layer",
    "activation": "gelu",
    "dropout": 0.0,
    "stochastic_depth": 0.0,
    "share_layers": False,
    "key_value_heads": None,
    "gradient_checkpointing": False,
}
Model = TypeVar("Model", bound=nn.Module)


def stack(kind: type[Stack], *, attention: Any = "full", position: str = "none", **options: Any) -> Stack:
    """A stack over token ids, or over vectors with `vectors=True`; `attention` is a name or a factory."""
    parts = {"attention": _factory(attention), "position": position_factory(position)}
    return _built(kind, parts, **options)


def encoder_decoder(
    *,
    attention: str = "full",
    decoder_attention: Any = "full",
    cross_attention: str = "full",
    position: str = "none",
    decoder_position: str = "none",
    **options: Any,
) -> EncoderDecoder:
    """The same, of both sides."""
    parts = {
        "attention": attention_factory(attention),
        "decoder_attention": _factory(decoder_attention),
        "cross_attention": attention_factory(cross_attention),
        "position": position_factory(position),
        "decoder_position": position_factory(decoder_position),
    }
    return _built(EncoderDecoder, parts, **options)


def _factory(attention: Any) -> Any:
    return attention_factory(attention) if isinstance(attention, str) else attention


def _built(kind: Any, parts: dict[str, Any], *, vectors: bool = False, layers: int = LAYERS, **options: Any) -> Any:
    size = Size(d_model=D_MODEL, layers=layers, heads=HEADS, feed_forward=HIDDEN)
    embed = (lambda d: nn.Identity()) if vectors else (lambda d: Embedding(VOCABULARY, d))
    model = kind(embed, LENGTH, size=size, **parts, **{**OPTIONS, **options})
    initialise(model, seed=0)
    return model.eval()


def randomised(model: Model) -> Model:
    """Biases, norms and all, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def real(lengths: list[int], longest: int) -> Tensor:
    """A mask of sequences padded on the right."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())


def copy_tower(tower: Tower, layers: nn.ModuleList) -> None:
    """Our weights into torch's encoder or decoder layers."""
    for index, layer in enumerate(layers):
        block: Any = tower.block(index)
        branches = [(block.attention, "self_attn")] + ([(block.cross, "multihead_attn")] if block.cross else [])
        for number, (branch, name) in enumerate(branches, start=1):
            copy_attention(branch.branch, getattr(layer, name))
            getattr(layer, f"norm{number}").load_state_dict(branch.norm.state_dict())
        getattr(layer, f"norm{len(branches) + 1}").load_state_dict(block.feed_forward.norm.state_dict())
        layer.linear1.load_state_dict(block.feed_forward.branch.expand.state_dict())  # type: ignore[union-attr]
        layer.linear2.load_state_dict(block.feed_forward.branch.contract.state_dict())  # type: ignore[union-attr]


def copy_last_norm(norm: str, ours: nn.Module) -> nn.Module | None:
    """Torch's norm after the last layer, with our weights; with post-norm there is none."""
    if norm == "post":
        return None
    theirs = nn.LayerNorm(D_MODEL)
    theirs.load_state_dict(ours.state_dict())
    return theirs

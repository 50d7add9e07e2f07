"""In 16 bits every variant is as exact as torch's fused kernel, so that a comparison favours none of them.

Errors are root mean squares, of a result or gradient, relative to the same in float64 from the same 16-bit numbers. The
yardstick is the error that the fused kernel makes on the same queries, keys and values: over the pairs that the variant
reads, where it is a softmax over some, and over all (or all up to the query) where it is none. On a processor that is
torch's flash kernel.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.contracts.variants import ATTENTIONS, POSITIONS, attention_class, attention_factory, position_factory
from xformer.attention.base import Attention, AttentionContext
from xformer.attention.kernels.block_sparse.attention import BlockSparseAttention
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.sdpa import backend
from xformer.layers.initialise import initialise
from xformer.position.base import Position, PositionContext

HEADS, HEAD_DIM, LENGTH = 2, 32, 96
DTYPES = [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
DEVIATIONS = [1.0, 4.0, 8.0]
WITHIN = 2.0
LARGER: dict[str, dict[str, Any]] = {"linformer": {"rank": 32}, "performer": {"features": 32}}
"""Than in other contracts: of four keys, the fused kernel's own gradients are three times less exact."""


def options(name: str) -> list[dict[str, Any]]:
    """Every combination of the choices that a variant's constructor offers."""
    hints = get_type_hints(attention_class(name).__init__)
    choices = {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


CASES = [
    pytest.param(name, picked, causal, id="-".join([name, *map(str, picked.values()), "causal" if causal else "both"]))
    for name in ATTENTIONS
    for picked in options(name)
    for causal in (False, True)
    if not causal or Capability.CAUSAL in attention_class(name).provides
]


def build(name: str, picked: dict[str, Any], causal: bool, length: int = LENGTH) -> Attention:
    context = AttentionContext(HEADS, HEAD_DIM, length, length, causal)
    attention: Attention = attention_factory(name)(context, **LARGER.get(name, {}), **picked)
    initialise(attention, seed=0)
    return attention.eval()


def build_position(scheme: str, causal: bool, length: int = LENGTH) -> Position:
    context = PositionContext(HEADS * HEAD_DIM, HEADS, HEAD_DIM, 1, length, causal)
    position: Position = position_factory(scheme)(context)
    initialise(position, seed=0)
    return position.eval()


SCHEMES = ["none", *(name for name in POSITIONS if build_position(name, False).bias(0) is not None)]


def precise(module: Any, make: Callable[[], Any]) -> Any:
    """In float64, with the numbers of a module of fewer bits."""
    made = make().double()
    made.load_state_dict(module.state_dict())
    return made


def differentiate(function: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    mixed = function(*leaves)
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, upstream.to(mixed.dtype))]


def errors(found: list[Tensor], exact: list[Tensor]) -> Tensor:
    return torch.stack([(x.double() - y).norm() / y.norm() for x, y in zip(found, exact, strict=True)])


def draw(dtype: torch.dtype, deviation: float, length: int = LENGTH) -> list[Tensor]:
    """Queries, keys, values and a gradient from above, with scores q . k / sqrt(d) of this deviation."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, HEADS, length, HEAD_DIM, generator=generator) for _ in range(4)]
    return [tensors[0].mul_(deviation).to(dtype), *(x.to(dtype) for x in tensors[1:])]


def mixing(attention: Attention, position: Position, mask: Mask) -> Callable[..., Tensor]:
    def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = position.bias(0)
        return attention(query if bias is None else bias.shift(query), key, value, mask=mask, bias=bias)

    return mix


def fused_errors(attention: Attention, causal: bool, inputs: list[Tensor], upstream: Tensor, scale: float) -> Tensor:
    """Of the fused kernel, over the pairs that the variant reads."""
    index = torch.arange(LENGTH)
    pairs = index <= index[:, None] if causal else torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    if isinstance(attention, BlockSparseAttention):
        heads = torch.arange(HEADS)[:, None, None]
        pairs = attention.mask_mod(LENGTH, causal=causal)(heads, index[:, None], index)
    empty = ~pairs.any(-1, keepdim=True)
    pairs = (pairs | empty).expand(1, HEADS, -1, -1)
    assert backend(*inputs, pairs, is_causal=False) == "flash"

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=pairs, scale=scale)
        return mixed.masked_fill(empty, 0.0)

    return errors(*(differentiate(kernel, tensors, upstream) for tensors in (inputs, [x.double() for x in inputs])))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "picked", "causal"), CASES)
def test_errors_are_within_twice_the_fused_kernel_s(
    name: str, picked: dict[str, Any], causal: bool, dtype: torch.dtype
) -> None:
    make, mask = partial(build, name, picked, causal), Mask.consecutive(0, LENGTH, causal=causal)
    scale = 1.0 if picked == {"form": "dot"} else HEAD_DIM**-0.5
    for deviation in DEVIATIONS:
        *inputs, upstream = draw(dtype, deviation / (scale * HEAD_DIM**0.5))
        allowed = WITHIN * fused_errors(make(), causal, inputs, upstream, scale)
        for scheme in SCHEMES:
            attention, position = make().to(dtype), build_position(scheme, causal).to(dtype)
            if position.needs not in attention.provides:
                continue
            exact = precise(attention, make), precise(position, partial(build_position, scheme, causal))
            found, expected = (
                differentiate(mixing(*modules, mask), tensors, upstream)
                for modules, tensors in (((attention, position), inputs), (exact, [x.double() for x in inputs]))
            )
            made = errors(found, expected)
            assert (made < allowed).all(), f"{scheme}, deviation {deviation}: {made / allowed * WITHIN} times"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_autocast_rounds_no_more_than_the_inputs(name: str, dtype: torch.dtype) -> None:
    """Of weights in float32 and inputs of 16 bits, which is what layers give under autocast."""
    causal = Capability.CAUSAL in attention_class(name).provides
    mask, (*inputs, upstream) = Mask.consecutive(0, LENGTH, causal=causal), draw(dtype, 4.0)
    attention = build(name, {}, causal)
    allowed = WITHIN * fused_errors(attention, causal, inputs, upstream, HEAD_DIM**-0.5)
    for scheme in SCHEMES:
        position = build_position(scheme, causal)
        if position.needs not in attention.provides:
            continue
        exact = (
            precise(attention, partial(build, name, {}, causal)),
            precise(position, partial(build_position, scheme, causal)),
        )
        expected = differentiate(mixing(*exact, mask), [x.double() for x in inputs], upstream)
        mix = torch.autocast("cpu", dtype=dtype)(mixing(attention, position, mask))
        found = differentiate(mix, inputs, upstream)
        assert found[0].dtype == dtype
        assert (errors(found, expected) < allowed).all(), (
            f"{scheme}: {errors(found, expected) / allowed * WITHIN} times"
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name", [name for name in ATTENTIONS if Capability.INCREMENTAL in attention_class(name).provides]
)
def test_decoding_is_as_exact_as_the_fused_kernel(name: str, dtype: torch.dtype) -> None:
    """A prompt, then token by token, with padding on the left of one row and without."""
    *inputs, upstream = draw(dtype, 4.0)
    make = partial(build, name, {}, True)
    allowed = WITHIN * fused_errors(make(), True, inputs, upstream, HEAD_DIM**-0.5)[0]
    inputs = [x.expand(2, -1, -1, -1) for x in inputs]
    for scheme, padded in itertools.product(SCHEMES, (False, True)):
        attention, position = make().to(dtype), build_position(scheme, True).to(dtype)
        if position.needs not in attention.provides:
            continue
        real = torch.arange(LENGTH) >= torch.tensor([[0], [5 if padded else 0]])
        positions = (real.long().cumsum(-1) - 1).clamp(min=0)
        exact = precise(attention, make), precise(position, partial(build_position, scheme, True))
        whole = mixing(*exact, Mask(positions, positions, True, real))(*(x.double() for x in inputs))
        state, bias, parts = attention.init_state(LENGTH), position.bias(0), []
        query, key, value = inputs if bias is None else (bias.shift(inputs[0]), *inputs[1:])
        for part in (slice(0, LENGTH - 8), *(slice(at, at + 1) for at in range(LENGTH - 8, LENGTH))):
            new = Mask(places := positions[:, part], places, True, real[:, part] if padded else None)
            some = (x[:, :, part] for x in (query, key, value))
            parts.append(attention.step(*some, state, mask=new, bias=bias))
        keep = real[:, None, :, None].expand_as(whole)
        made = errors([torch.cat(parts, dim=2)[keep]], [whole[keep]])
        assert made < allowed, f"{scheme}, padded {padded}: {made / allowed * WITHIN} times"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("name", "picked", "causal"), CASES)
def test_products_beyond_float16_are_scaled_before_they_are_rounded(
    name: str, picked: dict[str, Any], causal: bool, scheme: str
) -> None:
    """36 * 36 * 64 is more than float16 holds, and an eighth of it is not."""
    context = AttentionContext(2, 64, 2, 2, causal)
    attention = attention_factory(name)(context, **picked).half()
    position = position_factory(scheme)(PositionContext(128, 2, 64, 1, 2, causal)).half()
    if position.needs not in attention.provides:
        return
    inputs = [torch.full((1, 2, 2, 64), size).half() for size in (36.0, 36.0, 1.0)]
    found = differentiate(
        mixing(attention, position, Mask.consecutive(0, 2, causal=causal)), inputs, torch.ones(1, 2, 2, 64)
    )
    assert all(x.isfinite().all() for x in found)
    if causal and Capability.INCREMENTAL in attention.provides:
        state, bias = attention.init_state(2), position.bias(0)
        for at in range(2):
            query, key, value = (x[:, :, at : at + 1] for x in inputs)
            query = query if bias is None else bias.shift(query)
            mask = Mask.consecutive(at, 1, causal=True)
            assert attention.step(query, key, value, state, mask=mask, bias=bias).isfinite().all()

"""Torch's fused kernel gets what it needs to be taken and to be exact, and the log names the one that a GPU uses."""

import itertools
import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contracts.variants import ATTENTIONS, HEAD_DIM, HEADS, attention_class, build_attention, build_position
from xformer.core import sdpa
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.sdpa import align_mask, backend, fused_attention, log_kernel

META = torch.device("meta")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tensors(device: str, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.zeros(1, 2, 16, 8, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]


class Ran(TorchDispatchMode):
    """The names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_nothing_is_told_on_a_processor(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fused_attention(*tensors("cpu"))
    assert not caplog.records


def test_a_kernel_is_told_once_for_each_kind_of_input(caplog: pytest.LogCaptureFixture) -> None:
    """Decoding comes by with another length at every token."""
    caplog.set_level(logging.DEBUG)
    sdpa._remember.cache_clear()

    def decode(name: str, dtype: torch.dtype, queries: int = 1) -> None:
        for length, batch in itertools.product(range(5, 30), (1, 3)):
            query = torch.zeros(batch, 2, queries, 8, device="meta", dtype=dtype)
            key = torch.zeros(batch, 2, length, 8, device="meta", dtype=dtype)
            log_kernel(name, query, key, torch.zeros(1, 2, queries, length, device="meta"))

    decode("efficient", torch.bfloat16)
    assert len(caplog.records) == 1
    decode("math", torch.bfloat16)
    assert len(caplog.records) == 2
    decode("math", torch.float32)
    decode("math", torch.float32, queries=4)
    assert len(caplog.records) == 4
    decode("efficient", torch.bfloat16)
    assert len(caplog.records) == 4


@pytest.mark.parametrize("keys", range(1, 20))
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("queries", [1, 3])
def test_a_mask_for_a_gpu_has_aligned_rows_and_says_the_same(keys: int, dtype: torch.dtype, queries: int) -> None:
    torch.manual_seed(0)
    given = torch.randn(2, 2, queries, keys) * 3
    given = given > -3 if dtype == torch.bool else given.to(dtype)
    given[..., 0] = True if dtype == torch.bool else 0
    found = align_mask(given, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert found.shape == given.shape
    assert found.stride(-1) == 1
    assert all(stride % 8 == 0 for stride in found.stride()[:-1])
    query, key, value = (torch.randn(2, 2, length, 8) for length in (queries, keys, keys))
    mixed, expected = (scaled_dot_product_attention(query, key, value, attn_mask=x.to(torch.float32) if x.dtype
                       == torch.bfloat16 else x) for x in (found, given))  # fmt: skip
    assert_close(mixed, expected, atol=0 if dtype == torch.bool else 0.05, rtol=0)


def test_a_large_bias_is_rounded_where_it_does_not_matter() -> None:
    """Linformer's projected ALiBi is of hundreds, where bfloat16 has whole numbers alone."""
    bias = 300 + torch.linspace(-2, 2, 9).expand(1, 1, 2, 9)
    weights = align_mask(bias, torch.bfloat16).float().softmax(-1)
    assert_close(weights, bias.softmax(-1), atol=1e-3, rtol=0)
    assert (bias.bfloat16().float().softmax(-1) - bias.softmax(-1)).abs().max() > 0.05


@pytest.mark.parametrize(  # where rows differ in their positions, Transformer-XL reads them
    ("scheme", "padded"), [("alibi", False), ("alibi", True), ("t5", False), ("t5", True), ("transformer_xl", False)]
)
@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name in ("full", "multiplicative", "linformer")])
def test_whatever_a_fused_kernel_gets_off_the_processor_it_can_take(
    name: str, scheme: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks of aligned rows, of the queries' type, while decoding too; a device of no memory stands in for a GPU."""
    taken = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, **about: Any) -> Tensor:
        assert query.dtype == key.dtype == value.dtype == torch.bfloat16
        assert query.shape[-1] == key.shape[-1] == value.shape[-1]
        if attn_mask is not None:
            taken.append(tuple(attn_mask.shape))
            assert attn_mask.dtype == torch.bfloat16
            assert attn_mask.stride(-1) == 1
            assert not any(stride % 8 for stride in attn_mask.stride()[:-1])
        return torch.empty(*query.shape[:3], value.shape[-1], dtype=query.dtype, device=query.device)

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", kernel)
    causal = Capability.CAUSAL in attention_class(name).provides
    attention, position = build_attention(name, causal=causal), build_position(scheme, causal=causal)
    if position.needs not in attention.provides:
        return
    attention, position = attention.to("meta", torch.bfloat16), position.to("meta", torch.bfloat16)
    length = 11
    query, key, value = (torch.zeros(2, HEADS, length, HEAD_DIM, device="meta", dtype=torch.bfloat16) for _ in range(3))
    real = torch.ones(2, length, dtype=torch.bool, device="meta") if padded else None
    bias = position.bias(0)
    assert bias is not None
    query = bias.shift(query)
    attention(
        query, key, value, mask=Mask.consecutive(0, length, causal=causal, key_padding=real, device=META), bias=bias
    )
    if causal:
        state = attention.init_state(length)
        for at in range(length):
            one = slice(at, at + 1)
            mask = Mask.consecutive(at, 1, causal=True, key_padding=None if real is None else real[:, one], device=META)
            attention.step(query[:, :, one], key[:, :, one], value[:, :, one], state, mask=mask, bias=bias)
    assert taken or name == "multiplicative"  # which computes itself what has a bias


def test_what_is_wider_is_not_rounded() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 40, 16) for _ in range(3))
    low = [x.bfloat16() for x in (query, key, value)]

    def error(*inputs: Tensor) -> float:
        exact = scaled_dot_product_attention(*(x.double() for x in inputs), scale=0.5)
        return float((fused_attention(*inputs, scale=0.5).double() - exact).norm() / exact.norm())

    plain = error(*low)
    for wider in itertools.product((False, True), repeat=3):
        mixed = [x if wide else y for x, y, wide in zip((query, key, value), low, wider, strict=True)]
        if not all(wider):
            assert fused_attention(*mixed).dtype == torch.bfloat16
            assert error(*mixed) < 2 * plain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("added", ["none", "given", "trained"])
def test_the_kernel_that_is_named_is_the_one_that_runs(device: str, dtype: torch.dtype, added: str) -> None:
    inputs = tensors(device, dtype)
    bias = torch.zeros(1, 2, 16, 16, device=device, dtype=dtype, requires_grad=added == "trained")
    mask = None if added == "none" else bias
    with Ran() as ran:
        scaled_dot_product_attention(*inputs, attn_mask=mask)
    kernels = ("flash", "efficient", "cudnn")
    fused = [kernel for kernel in kernels if any(f"_{kernel}_attention" in name for name in ran.names)]
    assert [backend(*inputs, mask, is_causal=False)] == (fused or ["math"])


@pytest.mark.gpu
def test_a_gpu_is_told_about_once_and_decodes_with_a_bias_by_a_fused_kernel(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sdpa._remember.cache_clear()
    query, keys = (torch.randn(2, 4, n, 64, device="cuda", dtype=torch.bfloat16) for n in (1, 40))
    for length in range(1, 40):
        key = keys[:, :, :length]
        fused_attention(query, key, key, torch.randn(1, 4, 1, length, device="cuda"))
    assert len(caplog.records) == 1
    assert "math" not in caplog.text

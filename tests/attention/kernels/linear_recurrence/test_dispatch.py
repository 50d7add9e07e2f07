"""Which form runs, and that fla's kernels compute what ours do where there is a device for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence import dispatch
from xformer.attention.kernels.linear_recurrence.dispatch import check_installed, delta_rule, linear_attention
from xformer.errors import ConfigError


def draw(kind: str, length: int, device: str = "cpu", features: int = 64) -> list[Tensor]:
    """Queries, keys, values and gates: of retention or Mamba-2, of gated linear attention, or of the delta rule."""
    generator = torch.Generator().manual_seed(0)

    def normal(features: int) -> Tensor:
        return torch.randn(2, 3, length, features, generator=generator).to(device)

    q, k, v = normal(features) * features**-0.5, normalize(normal(features), dim=-1), normal(features)
    gates = {"scalar": [normal(1)], "diagonal": [normal(features)], "delta": [normal(1), normal(1)]}[kind]
    return [q, k, v, *(gate.sigmoid() for gate in gates[:-1]), logsigmoid(gates[-1]) / 4]


def run(kind: str, inputs: list[Tensor], kernel: Any, dtype: torch.dtype, state: Any = None) -> tuple[Tensor, Tensor]:
    recur: Callable[..., Any] = delta_rule if kind == "delta" else linear_attention
    outputs, last = recur(*inputs, state, kernel=kernel, path="attention", dtype=dtype)
    return outputs, last


KINDS = ["scalar", "diagonal", "delta"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_token_or_many_with_a_state_or_without(kind: str) -> None:
    inputs = draw(kind, 9, features=4)
    whole, last = run(kind, inputs, "torch", torch.float32)
    first, state = run(kind, [x[:, :, :8] for x in inputs], "torch", torch.float32)
    second, after = run(kind, [x[:, :, 8:] for x in inputs], "torch", torch.float32, state)
    assert_close(torch.cat((first, second), dim=2), whole)
    assert_close(after, last)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_in_float32(kind: str) -> None:
    inputs = [x.bfloat16() for x in draw(kind, 9, features=4)]
    for length in (1, 9):
        outputs, state = run(kind, [x[:, :, :length] for x in inputs], "torch", torch.bfloat16)
        assert outputs.dtype is state.dtype is torch.float32


def test_a_package_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    check_installed("torch", "attention")
    with pytest.raises(ConfigError, match=r"attention.kernel=fla needs the package flash-linear-attention"):
        check_installed("fla", "attention")


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_without_cuda_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"runs on CUDA alone, and this model is on cpu: use attention.kernel=torch"):
        run(kind, draw(kind, 9), "fla", torch.float32)


@pytest.mark.parametrize(("kind", "shared"), [*((kind, False) for kind in KINDS), ("scalar", True)])
def test_fla_is_called_with_tokens_before_heads(kind: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signature of fla's functions: q, k, v, g and beta by token and head, no scale, a state."""

    def chunk(
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Any = None,
        scale: float,
        initial_state: Tensor,
        **rest: Any,
    ) -> tuple[Tensor, Tensor]:
        assert (scale, rest) == (1.0, {"output_final_state": True})
        assert q.shape == k.shape == (2, 9, 3, 4)
        assert q.dtype is k.dtype is v.dtype is torch.bfloat16
        assert g.shape[:3] == (2, 9, 3)
        assert g.is_contiguous()
        gates = [x[..., None] if x.ndim == 3 else x for x in (beta, g) if x is not None]
        inputs = [x.transpose(1, 2) for x in (q, k, v, *gates)]
        outputs, last = run(kind, inputs, "torch", torch.float32, initial_state)
        return outputs.transpose(1, 2).to(v.dtype), last

    inputs, state = draw(kind, 9, features=4), torch.randn(2, 3, 4, 4)
    if shared:  # keys that heads share, and a decay that rows do
        inputs = [inputs[0][:, :1], inputs[1][:, :1], inputs[2], inputs[3][:1]]
    asked = []
    monkeypatch.setattr(dispatch, "_of_fla", lambda *names: asked.append(names[:2]) or chunk)
    inputs[:3] = [x.bfloat16().float() for x in inputs[:3]]
    outputs, last = run(kind, inputs, "fla", torch.bfloat16, state)
    expected, after = run(kind, inputs, "torch", torch.float32, state)
    assert outputs.dtype is torch.float32
    assert_close(outputs, expected, atol=0.02, rtol=0.02)
    assert_close(last, after)
    names = {"scalar": "simple_gla", "diagonal": "gla", "delta": "gated_delta_rule"}
    assert asked == [(names[kind], f"chunk_{names[kind]}")]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("length", [64, 150])
def test_fla_s_kernel_equals_ours(kind: str, dtype: torch.dtype, begun: bool, length: int) -> None:
    """Outputs, last state and gradients, within what 10 bits (TF32) or 8 (bfloat16) of a product leave."""
    inputs = draw(kind, length, "cuda")
    inputs = [*(x.to(dtype) for x in inputs[:3]), *inputs[3:]]
    state = torch.randn(2, 3, 64, 64, device="cuda") if begun else None
    results = []
    for kernel in ("torch", "fla"):
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        outputs, last = run(kind, leaves, kernel, dtype, state)
        gradients = torch.autograd.grad(outputs.square().mean() + last.square().mean(), leaves)
        results.append([outputs, last, *gradients])
    tolerance = 2e-2 if dtype is torch.bfloat16 else 4e-3
    for ours, theirs in zip(*results, strict=True):
        assert (ours.float() - theirs.float()).norm() <= tolerance * ours.float().norm()

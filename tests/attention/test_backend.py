"""The log tells which kernel a GPU uses: the one that runs."""

import logging

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from xformer.attention.backend import chosen, tell_backend

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
    tell_backend(*tensors("cpu"), None, causal=False)
    assert not caplog.records


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
    assert [chosen(*inputs, mask, causal=False)] == (fused or ["math"])


@pytest.mark.gpu
def test_a_kernel_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        tell_backend(*tensors("cuda"), None, causal=True)
    assert len(caplog.records) == 1

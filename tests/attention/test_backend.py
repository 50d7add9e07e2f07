"""The log tells which kernel a GPU uses. Without one, torch's own checks say that none of the fused ones can be."""

import logging

import pytest
import torch
from torch.backends import cuda

from xformer.attention.backend import chosen, tell_backend


def tensors(device: str) -> list[torch.Tensor]:
    return [torch.zeros(1, 2, 3, 8, device=device) for _ in range(3)]


def test_nothing_is_told_on_a_processor(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tell_backend(*tensors("cpu"), None, causal=False)
    assert not caplog.records


@pytest.mark.skipif(
    torch.version.cuda is not None and not torch.cuda.is_available(), reason="torch asks the CUDA device, and has none"
)
def test_what_no_fused_kernel_takes_is_the_math_kernels() -> None:
    assert chosen(cuda.SDPAParams(*tensors("cpu"), None, 0.0, False, False)) == "math"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to choose a kernel for")
def test_a_kernel_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        tell_backend(*tensors("cuda"), None, causal=True)
    assert len(caplog.records) == 1

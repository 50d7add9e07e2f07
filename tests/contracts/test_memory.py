"""Sub-quadratic means sub-quadratic: nothing of size queries x keys, forward or backward."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contracts.variants import ATTENTIONS, attention_factory, self_mask
from xformer.attention.base import AttentionContext
from xformer.layers.initialise import initialise

QUADRATIC = {"full", "additive", "multiplicative"}
LENGTH = 2048


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name not in QUADRATIC])
@pytest.mark.parametrize("padded", [False, True])
def test_nothing_of_size_queries_times_keys(name: str, padded: bool) -> None:
    attention = attention_factory(name)(AttentionContext(1, 4, LENGTH, LENGTH, causal=False))
    initialise(attention, seed=0)
    inputs = [torch.randn(1, 1, LENGTH, 4, requires_grad=True) for _ in range(3)]
    mask = self_mask(LENGTH, False, torch.ones(1, LENGTH, dtype=torch.bool) if padded else None)
    with LargestTensor() as largest:
        attention(*inputs, mask=mask).sum().backward()
    assert 0 < largest.numel < LENGTH * LENGTH / 4


def test_the_instrument_sees_a_quadratic_tensor() -> None:
    query = torch.randn(1, 1, LENGTH, 4)
    with LargestTensor() as largest:
        (query @ query.transpose(-1, -2)).softmax(-1) @ query
    assert largest.numel >= LENGTH * LENGTH

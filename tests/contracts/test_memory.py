"""Sub-quadratic means sub-quadratic: nothing of size queries x keys, forward or backward, and a peak that is linear."""

import gc
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contracts.variants import (
    ATTENTIONS,
    attention_class,
    attention_factory,
    position_class,
    position_factory,
    self_mask,
)
from xformer.attention.base import AttentionContext
from xformer.attention.kernels.block_sparse import block_attention
from xformer.attention.kernels.strided import tiles
from xformer.benchmark.live_bytes import LiveBytes
from xformer.core.capability import Capability
from xformer.layers.initialise import initialise
from xformer.position.base import PositionContext

QUADRATIC = {"full", "additive", "multiplicative"}
SUBQUADRATIC = [name for name in ATTENTIONS if name not in QUADRATIC]
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


@pytest.mark.parametrize("name", SUBQUADRATIC)
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


# Hyper-parameters for sequences of thousands of tokens; a variant that is not here has those of the other contracts.
LONG_ROWS: dict[str, dict[str, Any]] = {
    "local": {"window": 64},
    "sparse": {"stride": 64},
    "bigbird": {"block": 16},
    "linformer": {"rank": 32},
    "performer": {"features": 128},
}
LONG: list[tuple[str, dict[str, Any]]] = [(name, LONG_ROWS.get(name, {})) for name in SUBQUADRATIC]
LONG += [("sparse", {"stride": None}), ("sparse", {"stride": 64, "pattern": "fixed"})]
LONG_LENGTHS = [1024, 2048, 4096, 8192]
ROLES = [(scheme, causal) for scheme in ("none", "alibi", "t5", "relative") for causal in (False, True)]


def declared(name: str, scheme: str, causal: bool) -> bool:
    needs = position_class(scheme).needs | (Capability.CAUSAL if causal else Capability.NONE)
    return needs in attention_class(name).provides


def exempt(name: str, scheme: str) -> bool:
    # sparse.py: memory is linear, but with a bias that depends on the query it is what time is, n^2 / stride.
    return name == "sparse" and Capability.CONTENT_BIAS in position_class(scheme).needs


LINEAR = [
    (name, row, scheme, causal)
    for (name, row), (scheme, causal) in itertools.product(LONG, ROLES)
    # To the block-sparse kernel, ALiBi is a table as T5's is.
    if declared(name, scheme, causal) and not exempt(name, scheme) and (scheme != "alibi" or name == "performer")
]


def memory(name: str, row: dict[str, Any], scheme: str, causal: bool, length: int) -> tuple[int, int]:
    """The peak of forward and backward, inputs and weights included; and what is left when all results are gone."""
    heads, head_dim = 4, 32
    gc.collect()
    with LiveBytes() as live:
        attention = attention_factory(name)(AttentionContext(heads, head_dim, length, length, causal), **row)
        context = PositionContext(heads * head_dim, heads, head_dim, 1, length, causal)
        position = position_factory(scheme)(context)
        inputs = [torch.randn(1, heads, length, head_dim, requires_grad=True) for _ in range(3)]
        mask = self_mask(length, causal, torch.arange(length)[None] < length - 5)
        attention(*inputs, mask=mask, bias=position.bias(0)).sum().backward()
        attention.zero_grad()
        del inputs, mask
        gc.collect()
        return live.peak, live.now


def growth(measured: Sequence[int]) -> list[float]:
    """How an increment compares with the one before it, where each length is twice the one before: linear is 2."""
    increments = [after - before for before, after in itertools.pairwise(measured)]
    return [after / before for before, after in itertools.pairwise(increments)]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    # The block-sparse kernel has room for a constant number of scores: let the shortest sequence fill it.
    monkeypatch.setattr(block_attention, "SCORES_AT_A_TIME", 1 << 17)
    monkeypatch.setattr(tiles, "SCORES_AT_A_TIME", 1 << 16)


@pytest.mark.slow
@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(("name", "row", "scheme", "causal"), LINEAR)
def test_peak_memory_grows_linearly(name: str, row: dict[str, Any], scheme: str, causal: bool) -> None:
    peaks, left = zip(*(memory(name, row, scheme, causal, length) for length in LONG_LENGTHS), strict=True)
    assert all(0.85 * 2 <= found <= 1.15 * 2 for found in growth(peaks)), peaks
    assert left[-1] <= 2.3 * left[-2], left  # layouts, projections and whatever else is kept


@pytest.mark.slow
@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("causal", [False, True])
def test_sparse_with_a_content_bias_needs_what_it_documents(causal: bool) -> None:
    """The memory of n^1.5 scores with the default stride, the square root of the length."""
    peaks = [memory("sparse", {"stride": None}, "relative", causal, length)[0] for length in LONG_LENGTHS]
    assert all(found <= 1.15 * 2**1.5 for found in growth(peaks)), peaks


def test_the_instrument_counts_what_is_alive() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)
        second = first[:10].view(2, 5)  # no bytes of its own
        assert (live.now, live.peak) == (4000, 4000)
        del first
        assert live.now == 4000
        (second + 1).sum()
        assert live.peak == 4000 + 40 + 4
        del second
    assert live.now == 0


@torch.library.custom_op("tests::doubled_by_detour", mutates_args=())
def doubled_by_detour(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x, x, x])[: len(x)] * 2


def test_the_instrument_sees_into_operators_written_in_python() -> None:
    with LiveBytes() as live:
        made = doubled_by_detour(torch.zeros(1000))
    assert (live.now, live.peak) == (4000, 4000 + 16000 + 4000)
    assert torch.equal(made, torch.zeros(1000))


def test_the_instrument_leaves_out_what_was_there() -> None:
    there = torch.zeros(1000)
    with LiveBytes() as live:
        view = there.view(10, 100)
        assert live.peak == 0
        made = view + 1
        view.add_(made)
        del there, view
        assert (live.now, live.peak) == (4000, 4000)


def test_the_instrument_sees_quadratic_growth() -> None:
    peaks = [memory("full", {}, "relative", False, length)[0] for length in (128, 256, 512, 1024)]
    assert all(found > 3 for found in growth(peaks))

"""Full attention with a bias of the distance, as a GPU computes it: no n x n tensor, and the equation all the same."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.kernels.block_sparse import attention as block_sparse
from xformer.attention.kernels.block_sparse.attention import SHORTEST, applies_to_all
from xformer.core.mask import Mask
from xformer.layers.initialise import initialise
from xformer.position.alibi import ALiBi
from xformer.position.base import PositionContext
from xformer.position.t5 import T5
from xformer.position.transformer_xl import TransformerXL

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
HEADS, FEATURES = 3, 4
SCHEMES: dict[str, tuple[Any, dict[str, Any]]] = {
    "alibi": (ALiBi, {}),
    "t5": (T5, {"buckets": 8, "max_distance": 16}),
    "transformer_xl": (TransformerXL, {"base": 100.0}),
}
CPU = torch.device("cpu")
both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
both_schemes = pytest.mark.parametrize("name", ["alibi", "t5"])


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The same call as on a GPU, of torch's own reference, which adds to the score of each pair by itself."""
    calls: list[Any] = []

    def reference(*arguments: Any, **keywords: Any) -> Tensor:
        calls.append(arguments)
        mixed: Tensor = torch_flex.flex_attention(*arguments, **keywords)
        return mixed

    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(torch_flex, "_warn_once", lambda *arguments, **keywords: None)
    monkeypatch.setattr(block_sparse, "applies", lambda query, bias, unordered: True)
    monkeypatch.setattr(block_sparse, "SHORTEST", 1)
    monkeypatch.setattr(block_sparse, "_compiled", lambda: reference)
    yield calls
    assert calls  # else something other was tested


def scheme(name: str, causal: bool, heads: int, features: int, length: int) -> Any:
    kind, keywords = SCHEMES[name]
    position = kind(PositionContext(heads * features, heads, features, 1, length, causal), **keywords)
    initialise(position, 0)
    for parameter in position.parameters():  # large enough to be seen
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return position


def equation(query: Tensor, key: Tensor, value: Tensor, bias: Any, causal: bool, real: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + B) V in float64, B written out from its definition pair by pair."""
    query, key, value = (x.double() for x in (query, key, value))
    place = torch.arange(query.shape[2])
    distances = place[None] - place[:, None]
    scores = query @ key.mT * query.shape[-1] ** -0.5 + bias.table(distances).double()[None]
    hidden = (distances > 0) & causal
    hidden = hidden[None, None] if real is None else hidden | ~real[:, None, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value


def check(
    name: str, causal: bool, length: int, side: str | None,
    device: str = "cpu", dtype: torch.dtype = torch.float32, heads: int = HEADS, features: int = FEATURES,
) -> None:  # fmt: skip
    """Values, and the gradients of queries, keys, values and the trained table."""
    position = scheme(name, causal, heads, features, length)
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, heads, length, features, generator=generator, requires_grad=True) for _ in range(3)]
    real = None if side is None else torch.arange(length) < torch.tensor([[length], [length - 3]])
    shown = torch.ones(2, 1, length, 1) if real is None else real[:, None, :, None]
    weights = torch.randn(exact[0].shape, generator=generator) * shown
    expected = equation(*exact, position.bias(0), causal, real)
    wanted = torch.autograd.grad((expected * weights).sum(), [*exact, *position.parameters()])
    inputs = [x.detach().where(shown > 0, torch.nan).to(device, dtype).requires_grad_() for x in exact]
    there = position.to(device)
    mask = Mask.counting(
        0, length, causal=causal, device=torch.device(device), key_padding=None if real is None else real.to(device)
    )
    attention = Full(AttentionContext(heads, features, length, length, causal))
    mixed = attention(*inputs, mask=mask, bias=there.bias(0))
    assert mixed.dtype == dtype
    near = dict(atol=1e-4, rtol=1e-4) if dtype == torch.float32 else dict(atol=6e-2, rtol=6e-2)
    assert_close((mixed.cpu().float() * shown), (expected * shown).float(), **near)
    found = torch.autograd.grad(
        torch.where(shown.to(device) > 0, mixed * weights.to(mixed), 0.0).sum(), [*inputs, *there.parameters()]
    )
    for gradient, exactly in zip(found, wanted, strict=True):
        scale = max(1.0, exactly.abs().max().item())  # that of a table is a sum over all pairs
        assert_close(gradient.cpu().float() / scale, exactly.float() / scale, **near)


@both_schemes
@both_directions
@pytest.mark.parametrize("side", [None, "right"])
@pytest.mark.parametrize("length", [37, 128])
def test_equals_the_equation(name: str, causal: bool, side: str | None, length: int, uncompiled: list[Any]) -> None:
    check(name, causal, length, side)


@both_schemes
def test_what_is_added_is_linear_in_the_length(name: str, uncompiled: list[Any]) -> None:
    """What the function holds on to, whatever the kernel makes of it."""
    length = 256
    position = scheme(name, True, HEADS, FEATURES, length)
    query = torch.randn(1, HEADS, length, FEATURES)
    attention = Full(AttentionContext(HEADS, FEATURES, length, length, True))
    attention(query, query, query, mask=Mask.counting(0, length, causal=True), bias=position.bias(0))
    (_, _, _, added, _), = uncompiled  # fmt: skip
    held = [cell.cell_contents for cell in added.__closure__ if isinstance(cell.cell_contents, Tensor)]
    assert sum(tensor.numel() for tensor in held) <= HEADS * (2 * length - 1)


def test_what_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(block_sparse, "applies", lambda query, bias, unordered: asked.append(unordered) or True)
    long, short = (torch.zeros(1, HEADS, n, FEATURES) for n in (SHORTEST, SHORTEST - 1))
    biases = {name: scheme(name, True, HEADS, FEATURES, SHORTEST).bias(0) for name in SCHEMES}
    mask = Mask.counting(0, SHORTEST, causal=True)
    assert applies_to_all(long, mask, biases["t5"])
    assert not applies_to_all(short, mask, biases["t5"])
    assert not applies_to_all(long, mask, None)
    step = Mask(torch.tensor([[SHORTEST - 1]]), torch.arange(SHORTEST)[None])
    assert not applies_to_all(long, step, biases["alibi"])
    torch.use_deterministic_algorithms(True)
    assert applies_to_all(long, mask, biases["t5"])
    assert asked == [True, False]  # whether the gradient of a table may be summed in any order


@pytest.mark.gpu
@both_schemes
@both_directions
@pytest.mark.parametrize("side", [None, "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_equals_the_equation(name: str, causal: bool, side: str | None, dtype: torch.dtype) -> None:
    check(name, causal, SHORTEST + 5, side, "cuda", dtype, features=64)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
@both_schemes
def test_a_device_holds_no_tensor_of_all_pairs(name: str, training: bool) -> None:
    from xformer.benchmark.live_bytes import extra_bytes

    length = 16_384
    device = torch.device("cuda")
    position = scheme(name, True, HEADS, 64, length).to(device)
    query = torch.randn(1, HEADS, length, 64, device=device, dtype=torch.bfloat16, requires_grad=training)
    attention = Full(AttentionContext(HEADS, 64, length, length, True))
    mask = Mask.counting(0, length, causal=True, device=device)

    def call() -> None:
        mixed = attention(query, query, query, mask=mask, bias=position.bias(0))
        if training:
            mixed.sum().backward()

    call()  # which compiles, and finds the blocks
    assert extra_bytes(call) < length * length

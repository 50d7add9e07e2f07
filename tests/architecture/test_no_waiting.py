"""A training step asks the device for nothing: whoever waits for an answer leaves it idle."""

from itertools import product

import pytest
import torch

from tests.architecture import tiny
from xformer.architecture.decoder import Decoder
from xformer.attention.block_sparse_slots import Slots


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to wait for")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("attention", "position"),
    [
        *product(("full", "local", "sparse"), ("learned", "rotary", "alibi", "t5")),
        ("full", "relative"),
        ("full", "transformer_xl"),
    ],
)
def test_forward_and_backward_do_not_wait(attention: str, position: str, padded: bool) -> None:
    model = tiny.stack(Decoder, attention=attention, position=position).cuda()
    tokens = torch.randint(tiny.VOCABULARY, (2, tiny.LENGTH), device="cuda")
    real = torch.arange(tiny.LENGTH, device="cuda") < torch.tensor([[tiny.LENGTH], [3]], device="cuda")
    model(tokens, real if padded else None).sum().backward()  # what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(tokens, real if padded else None).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("padded", [False, True])
def test_slots_of_counted_positions_are_those_that_are_read(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    positions, x = torch.arange(6)[None], torch.randn(2, 1, 6, 3)
    real = torch.arange(6) < torch.tensor([[6], [4]]) if padded else None
    read = Slots(positions, real)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "equal", None)
        patched.setattr(torch.Tensor, "max", None)
        known = Slots(positions, real, counted=True)
    assert known.span == read.span
    assert torch.equal(known.place(x), read.place(x))
    assert torch.equal(known.take(x), read.take(x))


def test_counted_distances_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.stack(Decoder, attention="full", position="transformer_xl")
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "aminmax", None)
        patched.setattr(torch.Tensor, "__int__", None)
        model(tokens).sum().backward()

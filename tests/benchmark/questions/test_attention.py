"""What is measured computes the same thing, and what is told of the measurements is in them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xformer.benchmark.against import TORCH
from xformer.benchmark.entries import labelled
from xformer.benchmark.peers import PEERS, FlexWindow, Peer
from xformer.benchmark.questions import attention
from xformer.benchmark.questions.attention import crossovers, measure
from xformer.benchmark.settings import settings
from xformer.benchmark.subjects import (
    Fused,
    FusedWithDenseBias,
    FusedWithWrittenOutBias,
    Mixing,
    Projected,
    Shape,
    step,
)
from xformer.benchmark.timing import AGAIN
from xformer.errors import ConfigError, RunError

SHAPE = Shape(2, 8, 64, 128, causal=False)
BIGBIRD = Shape(2, 2, 8, 1024, causal=False)
CAUSAL = Shape(2, 8, 64, 128, causal=True)


def tensors(shape: Shape) -> tuple[torch.Tensor, ...]:
    size = shape.batch, shape.heads, shape.length, shape.head_dim
    return tuple(torch.randn(size, requires_grad=True) for _ in range(3))


@pytest.mark.parametrize("shape", [SHAPE, CAUSAL])
def test_full_and_all_of_torchs_are_the_same(shape: Shape) -> None:
    inputs = tensors(shape)
    expected = Fused(shape)(*inputs)
    torch.testing.assert_close(Mixing({"attention": "full"}, shape)(*inputs), expected)
    before, by_distance, by_pair = 3, FusedWithWrittenOutBias(shape), FusedWithDenseBias(shape)
    for biased in (by_distance, by_pair):
        torch.testing.assert_close(biased(*inputs), expected)
    with torch.no_grad():
        by_distance.table[:, shape.length - 1 - before] = 100.0
        by_pair.bias.diagonal(-before, 1, 2).fill_(100.0)
    for biased in (by_distance, by_pair):
        mixed = biased(*inputs)[:, :, before:]
        torch.testing.assert_close(mixed, inputs[2][:, :, :-before], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("position", ["rotary", "transformer_xl", "t5"])
def test_what_is_measured_is_what_lies_between_the_projections(position: str) -> None:
    settings = {"attention": "full", "position": position}
    mixing, projected = Mixing(settings, CAUSAL), Projected(settings, CAUSAL)
    mixing.position = projected.position
    for parameter in projected.position.parameters():
        nn.init.normal_(parameter)
    attention = projected.attention
    for linear in (attention.query, attention.key, attention.value, attention.output):
        nn.init.eye_(linear.weight)
    x = torch.randn(CAUSAL.batch, CAUSAL.length, CAUSAL.d_model)
    split = x.view(*x.shape[:2], CAUSAL.heads, CAUSAL.head_dim).transpose(1, 2)
    torch.testing.assert_close(mixing(split, split, split).transpose(1, 2).flatten(-2), projected(x))


def test_a_window_is_the_peers_but_for_the_edge_of_its_blocks() -> None:
    """local-attention reads whole neighbouring blocks: with two blocks these are everything, as a wide window is."""
    pytest.importorskip("local_attention")
    peer = next(peer for peer in PEERS if peer.name == "local-attention")
    inputs = tensors(SHAPE)
    ours = Mixing({"attention": "local", "window": 127}, SHAPE)(*inputs)
    torch.testing.assert_close(peer.make(SHAPE)(*inputs), ours, atol=1e-5, rtol=1e-5)


def test_bigbird_alone_is_what_lies_between_its_projections() -> None:
    pytest.importorskip("transformers")
    whole, alone = (
        peer.make(BIGBIRD)
        for name in ("BigBird", "BigBird alone")
        for peer in PEERS
        if peer.name.startswith(f"{name} (")
    )
    attention = whole[0].module
    for projection in (attention.query, attention.key, attention.value):
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    tokens = torch.randn(2, 1024, 16)
    split = tokens.view(2, 1024, 2, 8).transpose(1, 2)
    torch.testing.assert_close(alone(split, split, split).transpose(1, 2).flatten(2), whole[0](tokens))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shape", [SHAPE, CAUSAL])
def test_a_window_is_that_of_flex_attention(shape: Shape) -> None:
    inputs = tuple(tensor.detach() for tensor in tensors(shape))  # on a CPU it has no backward
    expected = FlexWindow(shape, compiled=False)(*inputs)
    ours = Mixing({"attention": "local", "window": 64}, shape)(*inputs)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.shortest == 1], ids=lambda peer: peer.name)
def test_a_peer_takes_what_ours_takes(peer: Peer) -> None:
    if not peer.takes(SHAPE):
        pytest.skip(f"{peer.package} is not installed, or {peer.name} needs a CUDA device")
    ours: nn.Module = Projected(peer.ours, SHAPE) if peer.projects else Mixing(peer.ours, SHAPE)
    inputs = (torch.randn(2, 128, 512, requires_grad=True),) if peer.projects else tensors(SHAPE)
    theirs = peer.make(SHAPE)
    assert theirs(*inputs).shape == ours(*inputs).shape
    for module in (theirs, ours):
        gradients = step(module, inputs, training=True)()
        assert isinstance(gradients, tuple)
        assert all(gradient is not None for gradient in gradients[: len(inputs)])


def test_a_small_measurement_is_whole_and_is_kept(tmp_path: Path) -> None:
    config = settings("attention", ["lengths=[32]", "rounds=1", "seconds=0", "heads=2", "head_dim=8"], quick=True)
    results = measure(config, peers=False)
    results.print()
    written = results.save(tmp_path)
    assert {path.suffix for path in written} == {".csv", ".json", ".png"}
    assert all(path.stat().st_size for path in written)
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    assert len(rows) == len(results.rows) == len(json.loads(written[1].read_text())["rows"])
    causal = {row["variant"] for row in results.rows if row["form"] == "causal"}
    both = {row["variant"] for row in results.rows}
    assert both - causal == {"linformer"}  # which cannot be causal
    assert {name for name, _ in labelled(config, "variants")} <= both
    assert all(row["memory_bytes"] > 0 for row in results.rows)


def test_a_crossover_is_the_length_from_which_on_all_are_faster_than_noise() -> None:
    def rows(variant: str, speeds: dict[int, float]) -> list[dict[str, Any]]:
        about = {"form": "causal", "against": TORCH, "variant": variant}
        return [{**about, "length": length, "training_speed": speed} for length, speed in speeds.items()]

    found = [
        *rows(TORCH, {64: 1.0, 128: 1.0, 256: 1.0, 512: 1.0}),
        *rows("local", {64: 1.2, 128: 0.9, 256: 1.11, 512: 3.0}),
        *rows("full", {64: 1.01, 128: 1.02, 256: 1.09, 512: 1.2}),  # not further from 1 than the control
        *rows("additive", {64: 0.5}),
        *rows(f"{AGAIN}: {TORCH}", {64: 1.03, 128: 0.97, 256: 1.1, 512: 0.8}),
    ]
    whose = f"causal, trains faster than {TORCH}, by more than the noise, from length:"
    assert crossovers(found) == [f"{whose} local 256, full none to 512, additive none to 64."]


def test_what_does_not_fit_into_memory_is_told_and_nothing_takes_the_baselines_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fits(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
        return isinstance(module, Fused) == (inputs[0].shape[2] > 8)

    monkeypatch.setattr(attention, "_fits", fits)
    sizes = ["lengths=[8,16]", "causal=[true]", "variants=[{attention: full}]", "rounds=1", "seconds=0", "heads=2"]
    results = measure(settings("attention", sizes, quick=False), peers=False)
    assert [(row["length"], row["variant"]) for row in results.rows] == [(16, TORCH), (16, f"{AGAIN}: {TORCH}")]
    assert "memory: torch fused at 8, causal; full at 16, causal." in results.notes[-1]
    monkeypatch.setattr(attention, "_fits", lambda module, inputs: not isinstance(module, Fused))
    with pytest.raises(RunError, match=r"lengths=\[8, 16\] is too long: Not measured, .* torch fused at 16"):
        measure(settings("attention", sizes, quick=False), peers=False)


@pytest.mark.parametrize(
    ("override", "words"),
    [("lenghts=[1]", "did you mean lengths"), ("lengths", "write key=value"), ("rounds=x", "rounds=x")],
)
def test_a_wrong_setting_is_refused_in_a_sentence(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings("attention", [override], quick=False)

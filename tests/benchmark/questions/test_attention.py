"""What is measured computes the same thing, and what is told of the measurements is in them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.contracts.variants import ATTENTIONS, OPTIONS
from xformer.benchmark.entries import labelled
from xformer.benchmark.equivalence import TORCH
from xformer.benchmark.modules import (
    Fused,
)
from xformer.benchmark.questions import attention
from xformer.benchmark.questions.attention import LAYER, crossovers, measure
from xformer.benchmark.settings import settings
from xformer.benchmark.timing import REPEATED
from xformer.errors import RunError

MIXERS = {name for name in OPTIONS if name not in ATTENTIONS}


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
    whole = {row["variant"] for row in results.rows if row["against"] == LAYER}
    assert whole == {LAYER, f"{REPEATED}: {LAYER}", *MIXERS}
    assert {row["form"] for row in results.rows if row["variant"] in MIXERS} == {"causal"}


def test_a_crossover_is_the_length_from_which_on_all_are_faster_than_noise() -> None:
    def rows(variant: str, speeds: dict[int, float]) -> list[dict[str, Any]]:
        about = {"form": "causal", "against": TORCH, "variant": variant}
        return [{**about, "length": length, "training_speed": speed} for length, speed in speeds.items()]

    found = [
        *rows(TORCH, {64: 1.0, 128: 1.0, 256: 1.0, 512: 1.0}),
        *rows("local", {64: 1.2, 128: 0.9, 256: 1.11, 512: 3.0}),
        *rows("full", {64: 1.01, 128: 1.02, 256: 1.09, 512: 1.2}),  # not further from 1 than the control
        *rows("additive", {64: 0.5}),
        *rows(f"{REPEATED}: {TORCH}", {64: 1.03, 128: 0.97, 256: 1.1, 512: 0.8}),
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
    assert [(row["length"], row["variant"]) for row in results.rows] == [(16, TORCH), (16, f"{REPEATED}: {TORCH}")]
    assert "memory: torch fused at 8, causal; full at 16, causal." in results.notes[-1]
    monkeypatch.setattr(attention, "_fits", lambda module, inputs: not isinstance(module, Fused))
    with pytest.raises(RunError, match=r"lengths=\[8, 16\] is too long: Not measured, .* torch fused at 16"):
        measure(settings("attention", sizes, quick=False), peers=False)

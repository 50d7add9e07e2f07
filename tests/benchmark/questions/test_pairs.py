"""Each pair is a row: ours, the other, and how they compare."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xformer.benchmark.modules import Fused, Mixing
from xformer.benchmark.questions import attention
from xformer.benchmark.questions import pairs as pairs_question
from xformer.benchmark.questions.attention import memory_share
from xformer.benchmark.questions.pairs import measure
from xformer.benchmark.settings import settings
from xformer.errors import ConfigError

TINY = ["rounds=1", "seconds=0", "heads=2", "head_dim=8"]


def test_a_pair_is_a_row(tmp_path: Path) -> None:
    pairs = (
        "pairs=[{attention: local, window: 4, length: 32, causal: true, against: torch fused},"
        "{attention: full, position: t5, length: 32, against: 'torch fused, dense trained bias'},"
        "{attention: linformer, rank: 256, length: 8, causal: true, against: linformer (lucidrains)}]"
    )
    config = settings("pairs", [pairs, *TINY], quick=False)
    results = measure(config, peers=False)
    results.print()
    assert all(path.stat().st_size for path in results.save(tmp_path))
    assert [(row["variant"], row["form"]) for row in results.rows] == [
        ("local", "causal"),
        ("full+t5", "bidirectional"),
    ]
    assert all(row["noise"] > 0 and row["memory_ratio"] > 0 for row in results.rows)
    assert "form: linformer against linformer (lucidrains) at 8, causal." in results.notes[-1]


def test_pairs_of_one_variant_are_told_apart() -> None:
    pairs = ",".join(f"{{attention: local, window: {window}, length: 8, against: torch fused}}" for window in (2, 4))
    results = measure(settings("pairs", [f"pairs=[{pairs}]", *TINY], quick=False), peers=False)
    assert [row["variant"] for row in results.rows] == ["local window=2", "local window=4"]


def test_every_pair_of_the_configuration_has_its_own_name_in_the_table() -> None:
    for pair in settings("pairs", [], quick=False).pairs:
        assert pair.attention != pair.against  # or one would take the other's place in the table


def test_where_no_pair_can_be_measured_that_is_said() -> None:
    pair = "pairs=[{attention: bigbird, block: 64, length: 512, against: BigBird (transformers)}]"
    with pytest.raises(ConfigError, match=r"nothing that can be measured.* BigBird \(transformers\) at 512"):
        measure(settings("pairs", [pair, *TINY], quick=False), peers=False)


@pytest.mark.parametrize("too_large", [Fused, Mixing])
def test_a_pair_that_does_not_fit_into_memory_is_told(too_large: type, monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(module: object, inputs: tuple[torch.Tensor, ...]) -> bool:
        return not (isinstance(module, too_large) and inputs[0].shape[2] == 16)

    monkeypatch.setattr(attention, "_fits", fits)
    pairs = ",".join(f"{{attention: local, length: {length}, against: torch fused}}" for length in (16, 8))
    results = measure(settings("pairs", [f"pairs=[{pairs}]", *TINY], quick=False), peers=False)
    assert [row["length"] for row in results.rows] == [8]
    assert [note for note in results.notes if "memory: local against torch fused at 16, bidirectional." in note]


def test_goals_stand_beside_the_figures_and_what_misses_its_own_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = (
        "pairs=[{attention: full, length: 8, against: torch fused, goal: 1.0e-9, memory_goal: 1.0e+9},"
        "{attention: local, window: 2, length: 16, against: torch fused, goal: 1.0e+9},"
        "{attention: local, window: 2, length: 8, against: torch fused, memory_goal: 1.0e-9},"
        "{attention: linformer, rank: 2, length: 8, against: torch fused}]"
    )
    results = measure(settings("pairs", [pairs, *TINY]), peers=False)
    assert [row["goal"] for row in results.rows] == [1e-9, 1e9, None, None]
    assert [row["memory_goal"] for row in results.rows] == [1e9, None, 1e-9, None]
    (goals,) = (note for note in results.notes if note.startswith("Goals"))
    assert "2 of 4 reached" in goals
    assert "Missed: local 16 bidirectional (speed); local 8 bidirectional (memory)." in goals
    results.print()
    assert "1e+09" in capsys.readouterr().out
    bare = "pairs=[{attention: full, length: 8, against: torch fused}]"
    without = measure(settings("pairs", [bare, *TINY]), peers=False)
    assert not any(note.startswith("Goals") for note in without.notes)


def test_what_is_stopped_keeps_the_rows_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    step = pairs_question.measured

    def stopped(subjects: Any, projects: bool, config: Any, shape: Any, on_progress: Any) -> Any:
        if shape.length == 16:
            raise KeyboardInterrupt
        return step(subjects, projects, config, shape, on_progress)

    monkeypatch.setattr(pairs_question, "measured", stopped)
    pairs = ",".join(f"{{attention: full, length: {length}, against: torch fused}}" for length in (8, 16, 4))
    results = measure(settings("pairs", [f"pairs=[{pairs}]", *TINY]), peers=False)
    assert [row["length"] for row in results.rows] == [8]
    assert "stopped before: full against torch fused at 16, bidirectional; full against" in results.notes[-1]


def test_the_least_memory_is_inputs_outputs_and_gradients() -> None:
    """Of a product alone, which keeps nothing: a query, a key and a value become gradients and an output."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    inputs = tuple(torch.zeros(1, 1, 8, 4, dtype=torch.bfloat16) for _ in range(3))
    one = 8 * 4 * 2
    assert memory_share(one + 3 * one + 16, Sum(), inputs) == 1.0
    assert memory_share(one + 3 * one + 16 + 7 * one, Sum(), inputs) == pytest.approx(1 + 7 * 64 / (7 * 64 + 16))


def test_the_table_of_a_gpu_has_every_goal() -> None:
    found = {
        (pair.attention, pair.get("position"), pair.length, pair.get("causal", False)): (
            pair.get("goal"),
            pair.get("memory_goal"),
        )
        for pair in settings("pairs", [], gpu=True).pairs
    }
    assert {goal for key, goal in found.items() if key[:2] == ("full", None)} == {(0.97, None)}
    assert {length for name, position, length, _ in found if (name, position) == ("full", None)} >= {4096, 65_536}
    assert found["full", "alibi", 8192, True] == (0.6, None)
    assert (found["local", None, 8192, False], found["local", None, 32_768, False]) == ((4, None), (12, None))
    assert found["sparse", None, 32_768, True] == found["bigbird", None, 32_768, False] == (4, None)
    assert (found["linformer", None, 32_768, False], found["performer", None, 32_768, False]) == ((6, None), (4, None))
    assert found["performer", None, 32_768, True] == (2, None)
    linear = {"local", "sparse", "bigbird", "linformer", "performer"}
    assert {key[0] for key, goals in found.items() if key[2] == 65_536 and goals[1] == 1.5} == linear

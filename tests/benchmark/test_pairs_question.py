"""Each pair is a row: ours, the other, and how they compare."""

from pathlib import Path

import pytest
import torch

from xformer.benchmark.questions import attention
from xformer.benchmark.questions.pairs import measure
from xformer.benchmark.settings import settings
from xformer.benchmark.subjects import Fused, Mixing
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

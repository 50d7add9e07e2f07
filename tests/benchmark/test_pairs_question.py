"""Each pair is a row: ours, the other, and how they compare."""

from pathlib import Path

import pytest

from xformer.benchmark.peers import PEERS
from xformer.benchmark.questions.pairs import _other, measure
from xformer.benchmark.settings import entries, settings
from xformer.errors import ConfigError


def test_a_pair_is_a_row(tmp_path: Path) -> None:
    pairs = (
        "pairs=[{attention: local, window: 4, length: 32, causal: true, against: torch fused},"
        "{attention: full, position: t5, length: 32, against: 'torch fused, dense trained bias'},"
        "{attention: linformer, rank: 256, length: 8, causal: true, against: linformer (lucidrains)}]"
    )
    config = settings("pairs", [pairs, "rounds=1", "seconds=0", "heads=2", "head_dim=8"], quick=False)
    results = measure(config, peers=False)
    results.print()
    assert all(path.stat().st_size for path in results.save(tmp_path))
    assert [(row["variant"], row["form"]) for row in results.rows] == [
        ("local", "causal"),
        ("full+t5", "bidirectional"),
    ]
    assert all(row["noise"] > 0 and row["memory_ratio"] > 0 for row in results.rows)
    assert any("linformer (lucidrains) at 8, causal" in note for note in results.notes)  # which cannot


def test_the_pairs_of_the_configuration_are_known_and_compute_what_the_peer_computes() -> None:
    peers = {peer.name: peer for peer in PEERS}
    for pair in settings("pairs", [], quick=False).pairs:
        assert _other(pair.against).name == pair.against
        if pair.against in peers:
            ours = peers[pair.against].ours
            assert pair.attention != pair.against  # or one would take the other's place in the table
            assert all(ours[key] == value for key, value in pair.items() if key in ours)


def test_an_unknown_peer_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="did you mean performer-pytorch"):
        _other("performer_pytorch")


@pytest.mark.parametrize(
    ("key", "entry", "lacks"),
    [("pairs", "attention: full, length: 8", "against"), ("models", "length: 8", "attention")],
)
def test_an_entry_that_lacks_something_is_refused_in_a_sentence(key: str, entry: str, lacks: str) -> None:
    config = settings("pairs", [f"{key}=[{{{entry}}}]"], quick=False)
    with pytest.raises(ConfigError, match=f"{key} has .* which lacks {lacks}"):
        entries(config, key, "attention", "length", *(["against"] if key == "pairs" else []))

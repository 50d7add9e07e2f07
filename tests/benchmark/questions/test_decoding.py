"""What is timed is greedy decoding from where the context ended, every time the same."""

from pathlib import Path

import pytest
import torch

from xformer.benchmark.models import Workload, build_benchmark_model, composed_config
from xformer.benchmark.peer_models import DecoderShape
from xformer.benchmark.questions.decoding import PEER, HuggingFaceDecoder, XformerDecoder, measure
from xformer.benchmark.settings import settings
from xformer.benchmark.timing import REPEATED
from xformer.config.validate import instantiate_node
from xformer.errors import ConfigError

MODEL = ["task=language_modeling", "data.block=16", "size=tiny", "architecture.dropout=0.0"]
PLACE = Workload(vocabulary=50, length=16 + 5 + 1, batch=2)


def test_a_small_measurement_is_whole_and_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    variants = (
        "variants=[{attention: full}, {attention: linformer}, {attention: full, position: rotary, longest: 8}, "
        "{attention: performer, features: 8}]"
    )
    typed = [
        f"model=[{','.join(MODEL)}]",
        variants,
        "contexts=[8,24]",
        "batches=[2]",
        "new_tokens=3",
        "rounds=1",
        "goal=2",
    ]
    results = measure(settings("decoding", typed, quick=False), peers=True)
    results.print()
    assert all(path.stat().st_size for path in results.save(tmp_path))
    found = {(row["context"], row["variant"]): row for row in results.rows}
    again = f"{REPEATED}: full"
    assert [name for context, name in found if context == 8] == ["full", "full+rotary", "performer", PEER, again]
    assert [name for context, name in found if context == 24] == ["full", "performer", PEER, again]
    assert found[8, "performer"]["state_bytes"] == found[24, "performer"]["state_bytes"]
    assert found[8, "full"]["state_bytes"] < found[24, "full"]["state_bytes"]
    assert found[8, PEER]["speed_against_peer"] == pytest.approx(1)
    assert [found[8, name]["goal"] for name in ("full", "performer", PEER)] == [2, 2, None]
    assert {"speed_against_peer", "goal"} <= set(results.shown)


def test_ours_writes_what_reading_everything_again_would() -> None:
    task, _ = build_benchmark_model(composed_config(MODEL), PLACE)
    subject = XformerDecoder(task.eval(), PLACE, 5)
    written = [subject.write()]
    subject.rewind()
    written.append(subject.write())
    assert torch.equal(*written)
    tokens = subject.ahead.tokens
    assert tokens.shape == (2, 16 + 1 + 5)
    with torch.no_grad():
        logits = task(tokens[:, :-1])
    assert torch.equal(logits.argmax(-1)[:, 15:], tokens[:, 16:])


def test_theirs_writes_what_reading_everything_again_would() -> None:
    pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    subject = HuggingFaceDecoder(DecoderShape(instantiate_node(composed_config(MODEL).size), PLACE), 5)
    written = [subject.write()]
    subject.rewind()
    written.append(subject.write())
    assert torch.equal(*written)
    tokens = written[0]
    assert tokens.shape == (2, 16 + 1 + 5)
    with torch.no_grad():
        logits = subject.model(tokens[:, :-1]).logits
    assert torch.equal(logits.argmax(-1)[:, 15:], tokens[:, 16:])
    assert subject.bytes == 2 * 2 * 16 * 32 * 4  # keys and values, batch, context, features, float32; one layer


def test_what_is_held_is_of_the_type_asked_for() -> None:
    pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    typed = [f"model=[{','.join(MODEL)}]", "variants=[{attention: full}]", "contexts=[15]", "batches=[1]", "rounds=1"]
    held = {}
    for dtype in ("float32", "bfloat16", "float64"):
        config = settings("decoding", [*typed, f"dtype={dtype}", "new_tokens=1"], quick=False)
        held[dtype] = {row["variant"]: row["state_bytes"] for row in measure(config, peers=True).rows}
    assert held["bfloat16"][PEER] == held["float32"][PEER] / 2 == held["float64"][PEER] / 4 == 2 * 15 * 32 * 2
    assert "goal" not in measure(config, peers=False).shown
    whole = {dtype: found["full"] for dtype, found in held.items()}
    numbers = (whole["float64"] - whole["float32"]) / 4  # keys and values, with room for what is written
    assert whole["bfloat16"] == whole["float32"] - 2 * numbers
    assert numbers >= 2 * 16 * 32


@pytest.mark.parametrize("more", ["", ", {attention: full, longest: 4}"])
def test_where_nothing_decodes_that_is_said(more: str) -> None:
    typed = [f"model=[{','.join(MODEL)}]", f"variants=[{{attention: linformer}}{more}]", "contexts=[8]"]
    with pytest.raises(ConfigError, match="none that decodes from a state after a context of 8"):
        measure(settings("decoding", typed, quick=False), peers=False)

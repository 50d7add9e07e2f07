"""What is told of a training step is true of it, and the peers are trained as ours is."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.benchmark.test_energy import Counters
from xformer.architecture.size import Size
from xformer.benchmark import whole, whole_peers
from xformer.benchmark.energy import Meter
from xformer.benchmark.questions import training
from xformer.benchmark.questions.training import OURS, measure
from xformer.benchmark.settings import settings
from xformer.benchmark.timing import AGAIN, Times, interleaved
from xformer.benchmark.whole import Place, TrainingStep, build, composed, variant_overrides
from xformer.benchmark.whole_peers import Decoder, TorchDecoder, gpt2, installed
from xformer.errors import ConfigError

TINY = "[task=language_modeling,data.block=16,data.batch_size=2,size=tiny,architecture.dropout=0.0]"
WHOLE = "whole=[task=masked_language_modeling,size=tiny,architecture.dropout=0.0]"
MODELS = "models=[{attention: full, length: 16}, {attention: linformer, rank: 4, length: 32}]"
PLACE = Place(vocabulary=50, length=16, batch=2)
DECODER = Decoder(Size(d_model=32, layers=2, heads=2, feed_forward=128), PLACE)


def tiny_step() -> TrainingStep:
    task, plan = build(composed(TINY.strip("[]").split(",")), PLACE)
    return TrainingStep(task, lambda batch: task.step(task.prepare(batch)).loss, plan.optimizer(task, True), PLACE)


def test_a_small_measurement_is_whole_and_is_kept(tmp_path: Path) -> None:
    config = settings(
        "training", [WHOLE, MODELS, f"model={TINY}", "vocabulary=50", "tokens=32", "rounds=1", "seconds=0"], quick=False
    )
    results = measure(config, peers=True)
    results.print()
    written = results.save(tmp_path)
    assert {path.suffix for path in written} == {".csv", ".json", ".png"}
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    ours = {row["variant"]: row for row in rows if row["against"] == "full 16"}
    assert list(ours) == ["full 16", "linformer 32", f"{AGAIN}: full 16"]
    assert [row["batch"] for row in ours.values()] == ["2", "1", "2"]  # as many tokens in every step
    theirs = [row["variant"] for row in rows if row["against"] == OURS]
    assert theirs[0] == OURS
    assert "torch TransformerEncoder" in theirs
    for row in results.rows:
        assert row["tokens_per_second"] == pytest.approx(row["batch"] * row["length"] / row["step_ms"] * 1000)
        assert row["flops"] > 0
        assert (row["watts"] is None) == (row["joules_per_token"] is None)


COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile calls a C++ compiler")


@pytest.mark.slow
@COMPILER
def test_decoders_are_compiled_alike_and_their_flops_are_those_of_the_model() -> None:
    """Without types checked while it runs, which would be compiled too, in a process of its own."""
    pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    typed = [f"model={TINY}", "vocabulary=50", "characters=50", "rounds=1", "seconds=0", "models=[]"]
    code = """
import json, sys
from xformer.benchmark.questions.training import measure
from xformer.benchmark.settings import settings
print(json.dumps([measure(settings("training", [*sys.argv[1:], *more]), peers=True).rows
    for more in ([], ["compiled=true", "others=[GPT-2 (transformers)]"])]))
"""
    found = subprocess.run([sys.executable, "-c", code, *typed], capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stderr
    eager, compiled = json.loads(found.stdout.splitlines()[-1])
    assert [row["variant"] for row in compiled] == [OURS, "GPT-2 (transformers)", f"{AGAIN}: {OURS}"]
    flops = {row["variant"]: row["flops"] for row in eager}
    assert all(row["flops"] == flops[row["variant"]] > 0 for row in compiled)


def test_a_compiled_loss_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is the loss, after its FLOPs are counted: what is compiled shows none."""
    seen: list[str] = []
    count = whole.flops_of
    monkeypatch.setattr(whole, "flops_of", lambda call: seen.append("counted") or count(call))
    monkeypatch.setattr(torch, "compile", lambda loss: seen.append("compiled") or loss)
    step = tiny_step()
    plain = step.measure()
    step.compiled = True
    assert step.measure() == plain
    assert seen == ["counted", "counted", "compiled"]


def test_where_there_is_nothing_to_measure_that_is_said() -> None:
    with pytest.raises(ConfigError, match=r"models=\[\] leaves nothing .* --peers"):
        measure(settings("training", ["models=[]"]), peers=False)


@pytest.mark.parametrize(
    ("name", "words"), [("GPT2 (transformers)", "did you mean GPT-2"), ("GPT-2 (transformers)", "not installed")]
)
def test_a_peer_that_is_not_there_is_refused(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_peers, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"others has .*{words}"):
        list(installed(DECODER, None, [name]))


def test_flops_and_memory_of_a_step_are_those_of_its_parts() -> None:
    """Each weight of a matrix product works three times on every token; the optimiser holds two numbers for each."""
    step = tiny_step()
    flops, memory = step.measure()
    size, layers = step.model.model.size, 1
    per_layer = 4 * size.d_model**2 + 2 * size.d_model * size.feed_forward
    weights = layers * per_layer + size.d_model * PLACE.vocabulary  # the tied output layer
    tokens, attention = PLACE.batch * PLACE.length, 12 * PLACE.batch * PLACE.length**2 * size.d_model * layers
    assert flops == 6 * weights * tokens + attention
    held = 4 * 3 * step.parameters  # weights and two moments
    assert held + 4 * step.parameters < memory < held + 4 * step.parameters + 10**6  # gradients, and what is small


def test_a_step_trains() -> None:
    torch.manual_seed(0)
    step = tiny_step()
    first = step.loss(step.batch).item()
    for _ in range(20):
        step()
    assert step.loss(step.batch).item() < 0.9 * first


@pytest.mark.parametrize("build_peer", [TorchDecoder, gpt2])
def test_a_peer_is_causal_and_of_the_size_asked_for(build_peer) -> None:
    if build_peer is gpt2:
        pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    model = build_peer(DECODER).eval()
    one = PLACE.tokens()
    other = one.clone()
    other[:, 9] = (other[:, 9] + 1) % PLACE.vocabulary
    logits = [getattr(found, "logits", found) for found in (model(one), model(other))]
    torch.testing.assert_close(logits[0][:, :9], logits[1][:, :9])
    assert not torch.allclose(logits[0][:, 9:], logits[1][:, 9:])
    d, layers = 32, 2
    matrices = layers * (4 * d * d + 2 * d * 128) + (PLACE.vocabulary + PLACE.length) * d
    vectors = layers * (4 * d + 128 + d + 4 * d) + 2 * d
    assert sum(parameter.numel() for parameter in model.parameters()) == matrices + vectors


def test_every_installed_peer_has_the_loss_of_its_logits(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class GPTConfig:\n"
        "    def __init__(self, **given): self.__dict__.update(given)\n"
        "class GPT(torch.nn.Module):\n"
        "    def __init__(self, config):\n"
        "        super().__init__()\n"
        "        self.table = torch.nn.Embedding(config.vocab_size, config.vocab_size)\n"
        "    def forward(self, tokens, labels):\n"
        "        logits = self.table(tokens)\n"
        "        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())\n"
    )
    batch = PLACE.pairs()
    found = dict(installed(DECODER, str(tmp_path)))
    assert "nanoGPT" in found
    for name, module in found.items():
        loss = module(*batch)
        assert loss.shape == ()
        loss.backward()
        if name != "nanoGPT":
            logits = module.model(batch.tokens)
            logits = getattr(logits, "logits", logits)
            torch.testing.assert_close(loss, cross_entropy(logits.flatten(0, 1), batch.labels.flatten()))


def test_a_wrong_nanogpt_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not nanoGPT's model\.py"):
        dict(installed(DECODER, str(tmp_path)))


def test_a_task_without_tokens_to_predict_is_refused() -> None:
    with pytest.raises(ConfigError, match="suits task=language_modeling"):
        composed(["task=classification"])


def test_a_variant_is_chosen_as_for_train() -> None:
    chosen = variant_overrides({"attention": "bigbird", "block": 64, "position": "t5", "length": 9, "longest": 9})
    assert chosen == ["attention=bigbird", "position=t5", "attention.block=64"]


def test_energy_is_that_of_turns_long_enough_for_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def quickly(steps: dict[str, Callable[[], object]], *, least: float, **rest: Any) -> Times:
        asked.append(least)
        return interleaved(steps, **rest)

    monkeypatch.setattr(training, "interleaved", quickly)
    monkeypatch.setattr(Meter, "of_this_machine", lambda: Meter(Counters()))
    typed = [WHOLE, "models=[{attention: full, length: 16}]", "vocabulary=50", "tokens=32", "rounds=1"]
    results = measure(settings("training", typed, quick=False), peers=False)
    assert asked == [1.0]
    assert [row["watts"] for row in results.rows] == [120, 120]
    for row in results.rows:
        assert row["joules_per_token"] == pytest.approx(120 / row["tokens_per_second"])

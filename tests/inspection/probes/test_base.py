"""Whatever is measured, training does not notice; and what is measured is logged, for every architecture."""

from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, ComposeJob
from tests.contracts.variants import ATTENTIONS, OPTIONS
from tests.inspection.probes.conftest import LISTOPS, TEXT, TRANSDUCTION, Prepared
from tests.studies.service import offline_file, records
from xformer.data.batch import ClassificationBatch, ImageBatch, Seq2SeqBatch
from xformer.inspection.probes.approximation_error import ApproximationError
from xformer.inspection.probes.attention_entropy import AttentionEntropy
from xformer.inspection.probes.base import single_examples
from xformer.inspection.probes.effective_context import EffectiveContext
from xformer.inspection.probes.gradient_norm import GradientNorm
from xformer.runs.metrics_table import read_metrics, series
from xformer.runs.summary import read_summary
from xformer.training.run import run

PROBES = "callbacks=[default,probes]"
RUN = [*SMALL, "trainer.max_steps=4", "trainer.val_check_interval=2", "architecture.dropout=0.1"]
MIXERS = [name for name in OPTIONS if name not in ATTENTIONS]
CASES = {
    "encoder": ([*LISTOPS, "attention=performer", "attention.redraw_interval=1"], ["self"]),
    "decoder": ([*TEXT, "attention=local", "attention.window=4"], ["self"]),
    "encoder_decoder": ([*TRANSDUCTION, "attention=bigbird", "attention.block=2"], ["encoder", "decoder", "cross"]),
}


@pytest.mark.parametrize("architecture", CASES)
def test_a_run_with_probes_is_the_run_without_to_the_bit(
    architecture: str, compose_job: ComposeJob, tmp_path: Path
) -> None:
    overrides, slots = CASES[architecture]
    logger = ["logger=wandb", "logger.wandb.mode=offline"] if architecture == "encoder" else []
    run(compose_job(*RUN, *overrides, directory=tmp_path / "without"))
    run(compose_job(*RUN, *overrides, PROBES, *logger, directory=tmp_path / "with"))
    plain, probed = (series(read_metrics(tmp_path / name)) for name in ("without", "with"))
    for name, curve in plain.items():
        if name != "tokens_per_second":
            assert probed[name] == curve, name
    states = [torch.load(tmp_path / n / "checkpoints/last.ckpt", weights_only=True) for n in ("without", "with")]
    assert all(torch.equal(states[0]["state_dict"][key], found) for key, found in states[1]["state_dict"].items())

    added = {*probed} - {*plain}
    measures = ("approximation_error", "attention_entropy", "attention_distance", "effective_context")
    cross = {"cross"} & {*slots}
    for measure in measures:
        found = {name.split("/")[2] for name in added if name.startswith(f"probe/{measure}/")}
        assert found == {*slots} - (cross if measure in measures[2:] else set()), measure
    assert {"probe/gradient_norm/embedding", f"probe/gradient_norm/{slots[0]}/layer0"} <= added
    for name in added:
        assert name.startswith("probe/")
        assert [step for step, _ in probed[name]] == [1, 3], name
        assert all(value >= 0 for _, value in probed[name]), name
    assert added <= set(read_summary(tmp_path / "with").metrics)
    if logger:
        items = [r["history"]["item"] for r in records(offline_file(tmp_path / "with")) if r["type"] == "history"]
        assert added <= {name for item in items for name in item}


def test_examples_lose_their_padding() -> None:
    tokens, mask = torch.arange(6).view(2, 3), torch.tensor([[True, True, False], [True, True, True]])
    first, second = single_examples(ClassificationBatch(tokens, mask, torch.tensor([7, 8])), 5)
    assert first == (first.tokens, None, first.labels)
    assert (first.tokens.tolist(), first.labels.tolist()) == ([[0, 1]], [7])
    assert (second.tokens.tolist(), second.labels.tolist()) == ([[3, 4, 5]], [8])

    (pair,) = single_examples(Seq2SeqBatch(tokens, mask, tokens + 10, ~mask, tokens + 20, ["x", "y"]), 1)
    assert isinstance(pair, Seq2SeqBatch)
    assert [field.tolist() for field in (pair.source_tokens, pair.target_tokens, pair.labels)] == [
        [[0, 1]],
        [[12]],
        [[22]],
    ]
    assert (pair.source_padding_mask, pair.target_padding_mask, pair.references) == (None, None, ["x"])
    (image,) = single_examples(ImageBatch(torch.rand(2, 1, 4, 4), torch.tensor([1, 2])), 1)
    assert image.images.shape == (1, 1, 4, 4)


def test_a_mixer_in_a_hybrid_is_left_out_with_a_sentence_said_once(
    compose_job: ComposeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ["attention=hybrid", "attention.layers=[local,mamba2,full]", "size.layers=3"]
    run(compose_job(*RUN, *TEXT, *layers, PROBES, directory=tmp_path / "run"))
    said = " ".join(capsys.readouterr().out.split())
    for probe in ("ApproximationError", "AttentionEntropy", "EffectiveContext"):
        sentence = f"{probe} skips self/layer1, because Mamba2 owns its projections and state, so it has no weights."
        assert said.count(sentence) == 1
    assert said.count("skips") == 3
    found = {name.split("/", 1)[1] for name in series(read_metrics(tmp_path / "run")) if name.startswith("probe/")}
    measures = ("attention_entropy", "attention_distance", "effective_context")
    by_head = {f"{name}/self/layer{layer}/head{head}" for name in measures for layer in (0, 2) for head in (0, 1)}
    whole = {f"approximation_error/self/layer{layer}" for layer in (0, 2)}
    gradients = {
        f"gradient_norm/{place}" for place in ("self/layer0", "self/layer1", "self/layer2", "embedding", "rest")
    }
    assert found == by_head | whole | gradients


@pytest.mark.parametrize("name", MIXERS)
def test_a_run_of_a_mixer_alone_has_its_gradients(name: str, prepared: Prepared) -> None:
    task, examples = prepared(*TEXT, f"attention={name}")
    for probe in (
        ApproximationError(examples=2),
        AttentionEntropy(examples=2),
        EffectiveContext(examples=2, share=0.9),
    ):
        assert probe.measure(task, examples) == {}
    found = GradientNorm(examples=2).measure(task, examples)
    assert found["gradient_norm/self/layer0"] > 0


def test_every_reason_has_its_layers(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    task, examples = prepared(*TRANSDUCTION, "attention=linformer")
    for probe in (AttentionEntropy(examples=2), EffectiveContext(examples=2, share=0.9)):
        probe.measure(task, examples)
    said = " ".join(capsys.readouterr().out.split())
    assert "AttentionEntropy skips encoder/layer0, because the weights of Linformer are not distributions." in said
    assert "EffectiveContext skips cross/layer0, because positions of two sequences have no distance." in said

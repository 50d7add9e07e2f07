"""The task: its loss against a plain one, its metrics against greedy decoding, and runs with every attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax
from torch.testing import assert_close

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.compatibility import check
from xformer.config.plan import Plan
from xformer.config.validate import groups
from xformer.data.batch import IGNORED, Seq2SeqBatch
from xformer.generation.greedy import greedy
from xformer.runs.summary import read_summary
from xformer.tasks.metrics import SequenceAccuracy, TokenAccuracy
from xformer.tasks.seq2seq import Seq2Seq
from xformer.training.run import run

SMALL_PAIRS = ["data.train_size=100", "data.val_size=40", "data.test_size=40", "data.symbols=5"]
TINY = [*SMALL, "task=seq2seq", *SMALL_PAIRS]


@pytest.fixture
def built(compose_job: ComposeJob) -> Any:
    def build(*overrides: str) -> tuple[Seq2Seq, Any, Seq2SeqBatch]:
        plan = Plan.of(compose_job(*TINY, *overrides).config)
        data = plan.load_data()
        task = plan.build_task()
        assert isinstance(task, Seq2Seq)
        return task.eval(), data, data.splits["val"].__getitems__(range(8))

    return build


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_real_target_tokens(smoothing: float, built: Any) -> None:
    task, _, batch = built(f"task.label_smoothing={smoothing}", "architecture.dropout=0.0")
    task.train()
    outcome = task.step(batch)
    losses = []
    for row, labels in zip(log_softmax(outcome.logits, -1), batch.labels, strict=True):
        for scores, label in zip(row, labels, strict=True):
            if label != IGNORED:
                losses.append(-(1 - smoothing) * scores[label] - smoothing * scores.mean())
    assert len(losses) == batch.target_padding_mask.sum() < batch.labels.numel()
    assert_close(outcome.loss, torch.stack(losses).mean())


def test_what_stands_in_padding_changes_no_loss(built: Any) -> None:
    task, _, batch = built()
    loss = task.step(batch).loss
    source = batch.source_tokens.masked_fill(~batch.source_padding_mask, 4)
    target = batch.target_tokens.masked_fill(~batch.target_padding_mask, 4)
    assert_close(task.step(batch._replace(source_tokens=source, target_tokens=target)).loss, loss)


def test_the_three_tables_are_one(built: Any) -> None:
    tied, data, _ = built()
    assert tied.head is None
    assert sum(p.shape == (data.facts.vocabulary, 32) for p in tied.parameters()) == 1
    apart, _, _ = built("task.tied_embeddings=false")
    assert apart.head is not None
    assert apart.head.weight.data_ptr() != apart.model.embedding.weight.data_ptr()


@pytest.mark.parametrize("attention", ["full", "local"])
def test_greedy_decoding_equals_the_argmax_without_states(attention: str, built: Any) -> None:
    task, data, batch = built(f"attention@decoder_attention={attention}", "position@decoder_position=rotary")
    source, mask = batch.source_tokens, batch.source_padding_mask
    written = greedy(task.model, task.logits, source, mask, begin=data.facts.begin, end=data.facts.end, max_new=9)
    ended = (written == data.facts.end).cumsum(dim=1) > 0
    assert (written[ended] == data.facts.end).all()
    target = torch.full((len(source), 1), data.facts.begin)
    for step in range(written.shape[1]):
        best = task(source, mask, target)[:, -1].argmax(-1)
        running = (written[:, :step] != data.facts.end).all(dim=1)
        assert torch.equal(written[running, step], best[running])
        target = torch.cat([target, written[:, step : step + 1]], dim=1)


def test_sequence_accuracy_is_greedys_exact_match(built: Any) -> None:
    task, data, batch = built("data.kind=copy", "data.max_length=2", "data.min_length=1", "data.train_size=10",
                              "data.val_size=8", "data.test_size=8")  # fmt: skip
    optimizer = torch.optim.Adam(task.parameters(), lr=0.02)
    for _ in range(30):  # until some are right and some are not
        optimizer.zero_grad()
        task.step(batch).loss.backward()
        optimizer.step()
        metric = SequenceAccuracy()
        metric.update(task.step(batch).logits, batch.labels)
        if 0.2 < metric.compute() < 0.9:
            break
    source, mask = batch.source_tokens, batch.source_padding_mask
    written = greedy(task.model, task.logits, source, mask, begin=data.facts.begin, end=data.facts.end, max_new=3)
    exact = [
        data.decode(w.tolist()) == data.decode(t.tolist()) for w, t in zip(written, batch.target_tokens, strict=True)
    ]
    assert 0.2 < metric.compute() < 0.9
    assert_close(metric.compute(), torch.tensor(sum(exact) / len(exact)))


def test_the_metrics_count_what_is_real() -> None:
    labels = torch.tensor([[1, 2, IGNORED], [0, 1, 2]])
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0], [0, 2, 2]]), 3).float()
    token, sequence = TokenAccuracy(), SequenceAccuracy()
    token.update(logits, labels)
    sequence.update(logits, labels)
    assert_close(token.compute(), torch.tensor(4 / 5))
    assert_close(sequence.compute(), torch.tensor(1 / 2))


@pytest.mark.parametrize("attention", groups()["attention"])
def test_the_encoder_takes_every_attention(attention: str, compose_job: ComposeJob) -> None:
    job = compose_job(*TINY, f"attention={attention}", "trainer.max_steps=2", "trainer.val_check_interval=2")
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert summary.attention == {"encoder": attention, "decoder": "full", "cross": "full"}
    assert {"val/loss", "val/token_accuracy", "test/sequence_accuracy"} <= set(summary.metrics)
    assert summary.choices["decoder_position"] == summary.choices["position"] == "learned"
    assert (summary.tokens_seen or 0) > 0


def test_every_slot_takes_its_own(compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> None:
    slots = ["attention=bigbird", "attention@decoder_attention=performer", "attention@cross_attention=linformer"]
    schemes = ["position=relative", "position@decoder_position=alibi", "architecture.share_layers=true"]
    options = ["architecture.norm_layer=rms", "architecture.stochastic_depth=0.2", "architecture.key_value_heads=1"]
    job = compose_job(*TINY, *slots, *schemes, *options)
    run(job)
    assert read_summary(job.directory).attention == {"encoder": "bigbird", "decoder": "performer", "cross": "linformer"}
    shown = capsys.readouterr().out
    for words in ("decoder_attention=performer", "cross_attention=linformer", "decoder_position=alibi", "written"):
        assert words in shown


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_classification_reads_the_source_on_both_sides(pooling: str, compose_job: ComposeJob) -> None:
    job = compose_job(*SMALL, *SMALL_LISTOPS, "architecture=encoder_decoder", f"task.pooling={pooling}")
    run(job)
    summary = read_summary(job.directory)
    assert summary.attention == {"encoder": "full", "decoder": "full", "cross": "full"}
    assert summary.choices["task"] == "classification"


def test_a_run_of_another_architecture_does_not_speak_of_these_slots(compose_job: ComposeJob, tmp_path: Path) -> None:
    job = compose_job(*SMALL, *SMALL_LISTOPS, "position=alibi")
    run(job)
    summary = read_summary(job.directory)
    assert not {"decoder_attention", "cross_attention", "decoder_position"} & set(summary.choices)
    assert "decoder_position" not in (job.directory / "config.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "reverse", "sort"])
def test_it_learns(kind: str, compose_job: ComposeJob) -> None:
    job = compose_job(
        *SMALL, "task=seq2seq", "size=small", f"data.kind={kind}", "data.max_length=8", "data.batch_size=64",
        "optimizer.lr=3e-3", "architecture.dropout=0.0", "trainer.max_steps=1500", "trainer.val_check_interval=500",
        "trainer.log_every_n_steps=100", "trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0",
    )  # fmt: skip
    check(job.config, job.choices)
    run(job)
    accuracy = read_summary(job.directory).metrics["test/sequence_accuracy"]
    assert accuracy is not None
    assert accuracy > 0.95

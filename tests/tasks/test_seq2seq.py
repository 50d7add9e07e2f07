"""The task: its loss against a plain one, its metrics against greedy decoding, and runs with every attention."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import log_softmax
from torch.testing import assert_close

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.compatibility import check_compatibility
from xformer.config.plan import Plan
from xformer.config.validate import groups
from xformer.data.batch import IGNORED, Seq2SeqBatch
from xformer.generation.greedy import greedy_decode
from xformer.runs.summary import read_summary
from xformer.tasks.metrics import SequenceAccuracy
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
    written = greedy_decode(
        task.model, task.logits, source, mask, begin=data.facts.begin, end=data.facts.end, max_new=9
    )
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
    written = greedy_decode(
        task.model, task.logits, source, mask, begin=data.facts.begin, end=data.facts.end, max_new=3
    )
    exact = [
        data.decode(w.tolist()) == data.decode(t.tolist()) for w, t in zip(written, batch.target_tokens, strict=True)
    ]
    assert 0.2 < metric.compute() < 0.9
    assert_close(metric.compute(), torch.tensor(sum(exact) / len(exact)))


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
        *SMALL, "task=seq2seq", "size=small", f"data.kind={kind}", "data.max_length=5", "data.batch_size=64",
        "optimizer.lr=3e-3", "architecture.dropout=0.0", "trainer.max_steps=500", "trainer.val_check_interval=250",
        "trainer.log_every_n_steps=100", "trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0",
    )  # fmt: skip
    check_compatibility(job.config, job.choices)
    run(job)
    accuracy = read_summary(job.directory).metrics["test/sequence_accuracy"]
    assert accuracy is not None
    assert accuracy > 0.95


GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def figures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, (count, 5))


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Numbers spelt in German and in English, five digits each."""
    found = ["task=seq2seq", "data=parallel_text"]
    for key, names in (("source_files", GERMAN), ("target_files", ENGLISH)):
        paths = []
        for seed, (split, count) in enumerate({"train": 2000, "val": 64, "test": 50}.items()):
            path = tmp_path / f"{split}.{key}"
            path.write_text("".join(" ".join(names[d] for d in row) + "\n" for row in figures(count, seed)))
            paths.append(f"{split}:{path}")
        found.append(f"data.{key}={{{','.join(paths)}}}")
    return found


def trainer(**limits: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **limits,
    )  # fmt: skip


def test_the_scores_are_sacrebleus_on_what_greedy_writes(options: list[str], compose_job: ComposeJob) -> None:
    small = ["data.batch_size=16", "data.max_length=24", "task.decode_batches=2", "architecture.dropout=0.0"]
    plan = Plan.of(compose_job(*SMALL, *options, *small, "tokenizer=bpe", "tokenizer.vocabulary_size=300").config)
    data, task = plan.load_data(), plan.build_task()
    assert isinstance(task, Seq2Seq)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    for step in range(60):  # until it writes something that is partly right
        optimizer.zero_grad()
        task.step(data.splits["train"].__getitems__(range(16 * step, 16 * step + 16))).loss.backward()
        optimizer.step()
    found = {**trainer().validate(task, data, verbose=False)[0], **trainer().test(task, data, verbose=False)[0]}
    written: dict[str, list[str]] = {"val": [], "test": []}
    for split, texts in written.items():
        for first in range(0, len(data.splits[split]), 16):
            batch = data.splits[split].__getitems__(range(first, min(first + 16, len(data.splits[split]))))
            ids = greedy_decode(
                task.model, task.logits, batch.source_tokens, batch.source_padding_mask,
                begin=data.facts.begin, end=data.facts.end, max_new=data.facts.length,
            )  # fmt: skip
            texts += [data.decode(row) for row in ids.tolist()]
    for split, seed, count in (("val", 1, 32), ("test", 2, 50)):
        references = [" ".join(ENGLISH[d] for d in row) for row in figures(64 if split == "val" else 50, seed)[:count]]
        texts = written[split][:count]
        for name, score in (("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf)):
            assert found[f"{split}/{name}"] > 1
            assert found[f"{split}/{name}"] == pytest.approx(score(texts, [references]).score, abs=1e-4)


def test_symbols_have_no_text_to_score(compose_job: ComposeJob) -> None:
    sizes = ["data.train_size=100", "data.val_size=40", "data.test_size=40", "data.symbols=5"]
    job = compose_job(*SMALL, "task=seq2seq", *sizes)
    run(job)
    metrics = read_summary(job.directory).metrics
    assert "test/sequence_accuracy" in metrics
    assert not [name for name in metrics if name.endswith(("bleu", "chrf"))]


def test_a_run_leaves_its_scores_in_the_summary(options: list[str], compose_job: ComposeJob) -> None:
    job = compose_job(*SMALL, *options, "data.tokens_per_batch=800", "data.max_length=40")
    run(job)
    metrics = read_summary(job.directory).metrics
    assert {"val/bleu", "val/chrf", "test/bleu", "test/chrf", "test/token_accuracy"} <= set(metrics)
    assert (job.directory / "tokenizer.json").is_file()


@pytest.mark.slow
def test_it_learns_to_translate(options: list[str], compose_job: ComposeJob) -> None:
    job = compose_job(
        *SMALL, *options, "size=small", "tokenizer=bpe", "tokenizer.vocabulary_size=320", "data.max_length=24",
        "data.tokens_per_batch=1200", "optimizer.lr=3e-3", "architecture.dropout=0.0", "task.label_smoothing=0.1",
        "trainer.max_steps=300", "trainer.val_check_interval=150", "trainer.log_every_n_steps=10",
        "trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0",
    )  # fmt: skip
    run(job)
    metrics = read_summary(job.directory).metrics
    assert (metrics["test/bleu"] or 0) > 90
    assert (metrics["test/chrf"] or 0) > 90


def test_label_smoothing_is_of_training_alone(options: list[str], compose_job: ComposeJob) -> None:
    plan = Plan.of(compose_job(*SMALL, *options, "task.label_smoothing=0.1").config)
    data, task = plan.load_data(), plan.build_task()
    batch = data.splits["val"].__getitems__(range(4))
    task.train()
    smooth = task.step(batch).loss
    assert (task.eval().step(batch).loss - smooth).abs() > 1e-3
    plain = torch.nn.functional.cross_entropy(task.step(batch).logits.flatten(0, 1), batch.labels.flatten())
    assert_close(task.step(batch).loss, plain)

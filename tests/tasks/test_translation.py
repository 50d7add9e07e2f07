"""From two files to a score: the numbers of a run are sacrebleu's on what the model really writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from lightning.pytorch import Trainer
from torch.testing import assert_close

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.generation.greedy import greedy
from xformer.runs.summary import read_summary
from xformer.tasks.seq2seq import Seq2Seq
from xformer.training.run import run

GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


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
            ids = greedy(
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

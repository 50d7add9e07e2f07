"""The task: its loss, masks that depend on what they may depend on alone, and runs that resume exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax
from torch.testing import assert_close

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.data.batch import IGNORED, LanguageModelingBatch
from xformer.errors import ConfigError, IncompatibleError
from xformer.runs.summary import read_summary
from xformer.tasks.masked_language_modeling import MaskedLanguageModeling
from xformer.training.run import run

TINY = [*SMALL, "task=masked_language_modeling", "data.block=16"]


@pytest.fixture
def built(compose_job: ComposeJob) -> Any:
    def build(*overrides: str) -> tuple[MaskedLanguageModeling, LanguageModelingBatch]:
        plan = Plan.of(compose_job(*TINY, *overrides).config)
        data = plan.load_data()
        task = plan.build_task()
        assert isinstance(task, MaskedLanguageModeling)
        return task, data.splits["val"].__getitems__(range(6))

    return build


def test_the_loss_is_of_the_chosen_tokens_and_the_labels_do_not_matter(built: Any) -> None:
    task, batch = built("architecture.dropout=0.0")
    task.eval()
    outcome = task.step(task.prepare(batch))
    chosen = outcome.labels != IGNORED
    assert chosen.sum(1).tolist() == [2] * 6
    assert torch.equal(outcome.labels[chosen], batch.tokens[chosen])
    scores = log_softmax(outcome.logits, -1)
    assert_close(outcome.loss, -scores[chosen].gather(1, outcome.labels[chosen][:, None]).mean())
    assert outcome.logits.shape[-1] == task.vocabulary == task.model.embedding.num_embeddings - 1
    blank = batch._replace(labels=torch.full_like(batch.labels, IGNORED))
    assert torch.equal(task.step(task.prepare(blank)).loss, outcome.loss)


def test_masks_change_with_batch_epoch_and_seed_and_not_with_the_global_generator(built: Any) -> None:
    def labels(at: tuple[int, int], seed: int) -> list[list[int]]:
        task, batch = built(f"seed={seed}")
        task.train()
        task._batch = at
        torch.manual_seed(seed + sum(at))
        found: list[list[int]] = task.step(task.prepare(batch)).labels.tolist()
        return found

    first = labels((0, 3), 0)
    assert labels((0, 3), 0) == first
    assert all(labels(at, seed) != first for at, seed in (((0, 4), 0), ((1, 3), 0), ((0, 3), 1)))
    task, batch = built("seed=5")
    other, _ = built("seed=6")
    assert torch.equal(task.eval().prepare(batch).labels, other.eval().prepare(batch).labels)


def test_processes_hide_what_one_would_hide_in_their_share(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = built()
    task.train()
    whole = task.step(task.prepare(batch)).labels

    class Two:
        world_size = 2
        global_rank = 0

    shares = []
    monkeypatch.setattr(MaskedLanguageModeling, "global_rank", property(lambda self: Two.global_rank))
    task._trainer = Two
    for rank in range(2):
        Two.global_rank = rank
        shares.append(task.prepare(LanguageModelingBatch(*(part[3 * rank :][:3] for part in batch))).labels)
    assert torch.equal(torch.cat(shares), whole)


def test_a_resumed_run_equals_an_uninterrupted_one(compose_job: ComposeJob, tmp_path: Path) -> None:
    steps = [
        *TINY,
        "schedule=constant",
        "trainer.val_check_interval=4",
        "data.loader.batch_size=800",
        "trainer.accumulate_grad_batches=2",
    ]
    run(compose_job(*steps, "trainer.max_steps=6", directory=tmp_path / "whole"))
    run(compose_job(*steps, "trainer.max_steps=4", directory=tmp_path / "parts"))
    run(compose_job(*steps, "trainer.max_steps=6", "resume=true", directory=tmp_path / "parts"))
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    assert all(torch.equal(whole["state_dict"][key], parts["state_dict"][key]) for key in whole["state_dict"])
    one, other = (read_summary(tmp_path / name).metrics for name in ("whole", "parts"))
    assert {"test/loss", "test/perplexity", "test/accuracy"} <= set(one)
    assert {name: one[name] for name in one if "test" in name} == {
        name: other[name] for name in other if "test" in name
    }


@pytest.mark.parametrize("attention", ["linformer", "local"])
def test_it_runs_with_attention_that_is_not_causal_too(attention: str, compose_job: ComposeJob) -> None:
    extra = ["attention.rank=4"] if attention == "linformer" else []
    job = compose_job(*TINY, f"attention={attention}", *extra, "task.tied_embeddings=false", "trainer.max_steps=1")
    run(job)
    assert read_summary(job.directory).status == "finished"


def test_a_causal_architecture_is_refused(built: Any) -> None:
    with pytest.raises(IncompatibleError, match=r"causal architecture.*what would work: architecture=encoder"):
        built("architecture=decoder")


def test_shares_that_exceed_all_tokens_are_refused(built: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.masking\.hidden=0\.8 and task\.masking\.random=0\.3 .* must be at most 1"
    ):
        built("task.masking.random=0.3")

"""Under `bf16-true` and `16-true` what is logged is what float64 makes of the same logits, over many batches."""

import math
from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from sklearn.metrics import f1_score
from torch import Tensor, nn

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.attention.base import Attention
from xformer.config.plan import Plan
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED
from xformer.layers.multi_head import MultiHeadAttention
from xformer.tasks.base import Outcome, Task
from xformer.tasks.metrics import BitsPerByte, Perplexity, TokenAccuracy

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
LISTOPS = [*SMALL_LISTOPS, "data.generation.val_size=160"]
TASKS: dict[str, list[str]] = {
    "language_modeling": ["task=language_modeling", "data.block=16", "position=alibi"],
    "masked_language_modeling": ["task=masked_language_modeling", "data.block=16", "position=t5"],
    "classification": [*LISTOPS, "loss=focal", "task.class_weights=balanced"],
    "image_classification": ["task=image_classification"],
    "seq2seq": [
        "task=seq2seq",
        "data=transduction",
        "data.generation.train_size=64",
        "data.generation.val_size=160",
        "data.generation.test_size=8",
    ],
}
PRECISIONS = ["bf16-true", "16-true"]


@pytest.fixture
def built(compose_job: ComposeJob, tmp_path: Path) -> Function[[str], tuple[Task, DataModule]]:
    (tmp_path / "prose.txt").write_text(
        "".join(f"Line {n}: the quick brown fox jümps over {n % 7}.\n" for n in range(900))
    )

    def build(name: str) -> tuple[Task, DataModule]:
        files = [f"data.source.files={tmp_path / 'prose.txt'}"] if "language" in name else []
        plan = Plan.of(
            compose_job(*SMALL, *TASKS[name], *files, "data.loader.batch_size=4", "architecture.dropout=0.0").config
        )
        data = plan.load_data()
        return plan.build_task(), data

    return build


def trainer(precision: Any, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(
        accelerator="cpu", precision=precision, logger=False, use_distributed_sampler=False, **quiet, **options
    )


def watched(task: Task, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The logits and labels of every step, as a list that grows."""
    seen, step = [], task.step

    def watch(batch: Any) -> Outcome:
        outcome = step(batch)
        seen.append((outcome.logits.detach().double().flatten(0, -2), outcome.labels.flatten()))
        return outcome

    monkeypatch.setattr(task, "step", watch)
    return seen


def summed(seen: list[tuple[Tensor, Tensor]], prefix: str, names: set[str], data: DataModule) -> dict[str, float]:
    """The metrics of these names, in float64, label by label."""
    logits, labels = (torch.cat(x) for x in zip(*seen, strict=True))
    counts = labels != IGNORED
    logits, labels = logits[counts], labels[counts]
    nats = -logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
    right, f1 = (
        logits.argmax(-1) == labels,
        f1_score(labels, logits.argmax(-1), average="macro", labels=np.unique(labels)),
    )
    rows = [bool(((x.argmax(-1) == y) | (y == IGNORED)).all()) for x, y in seen]
    values = {
        "loss": nats.mean(),
        "perplexity": nats.mean().exp(),
        "bits_per_byte": nats.mean() / np.log(2) * (data.spec.tokens_per_byte or {}).get(prefix, np.nan),
        "accuracy": right.double().mean(),
        "token_accuracy": right.double().mean(),
        "macro_f1": f1,
        "sequence_accuracy": np.mean(rows),
    }
    return {name: float(values[name]) for name in names}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TASKS)
def test_evaluation_is_a_float64_sum_over_the_same_logits(
    name: str, precision: str, built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, data = built(name)
    seen = watched(task, monkeypatch)
    (found,) = trainer(precision).validate(task, data, verbose=False)
    assert len(seen) > 30
    assert seen[0][0].dtype == torch.float64
    found = {key.removeprefix("val/"): value for key, value in found.items() if not key.endswith(("bleu", "chrf"))}
    assert found.keys() >= {"loss"}
    if name == "seq2seq":  # whole sequences are counted by row, and rows are not kept apart here
        del found["sequence_accuracy"]
    expected = summed(seen, "val", set(found), data)
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", ["language_modeling", "seq2seq"])
def test_a_step_s_loss_is_of_its_logits_in_float64(name: str, built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = built(name)
    seen, logged = watched(task, monkeypatch), []

    class Log(Callback):
        def on_train_batch_end(self, trainer: Trainer, *about: Any) -> None:
            logged.append({key.removeprefix("train/"): float(x) for key, x in trainer.callback_metrics.items()})

    options = {"limit_val_batches": 0, "log_every_n_steps": 1, "callbacks": [Log()]}
    trainer("bf16-true", max_steps=3, **options).fit(task, data)
    assert len(logged) == 3
    for found, step in zip(logged, seen, strict=True):
        names = set(found) & {"loss", "accuracy", "token_accuracy"}
        assert len(names) == 2
        expected = summed([step], "train", names, data)
        assert {key: found[key] for key in names} == pytest.approx(expected, rel=1e-6)


def test_every_attention_prepares_for_every_batch_and_knows_the_step(
    built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, data = built("seq2seq")
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(Attention, "before_batch", lambda self, step: asked.append((id(self), step)))
    trainer("32-true", max_steps=2, accumulate_grad_batches=2, limit_val_batches=0).fit(task, data)
    attentions = [id(layer.mix) for layer in task.modules() if isinstance(layer, MultiHeadAttention)]
    assert len(attentions) == 3 * task.model.size.layers
    assert sorted(asked) == sorted((attention, step) for attention in attentions for step in (0, 0, 1, 1))


def test_what_mixers_ask_for_is_added_to_the_loss_and_logged_apart(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = built("seq2seq")
    forward, logged = MultiHeadAttention.forward, []

    def asking(self: MultiHeadAttention, x: Tensor, **about: Any) -> Tensor:
        mixed = forward(self, x, **about)
        self.auxiliary_loss = 0.25 + 0 * mixed.sum()
        return mixed

    class Log(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *about: Any) -> None:
            logged.append((outputs["loss"], trainer.callback_metrics.copy()))

    monkeypatch.setattr(MultiHeadAttention, "forward", asking)  # cross-attention has its own
    options = {"limit_val_batches": 1, "log_every_n_steps": 1, "callbacks": [Log()]}
    trainer("32-true", max_steps=2, **options).fit(task, data)
    assert len(logged) == 2
    for loss, metrics in logged:
        assert metrics["train/auxiliary_loss"] == 0.25 * 2 * task.model.size.layers
        torch.testing.assert_close(loss, metrics["train/loss"] + metrics["train/auxiliary_loss"])


def test_no_cast_of_a_model_rounds_a_sum() -> None:
    model = nn.ModuleList([Perplexity(), BitsPerByte(0.5), TokenAccuracy()])
    logits, labels = torch.randn(4, 7, 5), torch.randint(5, (4, 7))
    for cast in (lambda: model.to(torch.bfloat16), model.half, lambda: model.to(dtype=torch.float16), model.bfloat16):
        cast()
        for metric in model:
            metric.reset()
            for _ in range(300):
                metric.update(logits, labels)
        nats = -logits.double().log_softmax(-1).gather(-1, labels[..., None]).mean()
        found = [metric.compute() for metric in model]
        assert all(value.dtype == torch.float32 for value in found)
        exact = [nats.exp(), nats / math.log(2) / 2, (logits.argmax(-1) == labels).double().mean()]
        assert [float(x) for x in found] == pytest.approx([float(x) for x in exact], rel=1e-5)

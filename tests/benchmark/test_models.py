"""Whole models: composed as for training, and what is told of a step is true of it."""

import pytest
import torch

from xformer.benchmark import models
from xformer.benchmark.models import TrainingStep, Workload, build_benchmark_model, composed_config, variant_overrides
from xformer.errors import ConfigError

TINY = "[task=language_modeling,data.block=16,data.loader.batch_size=2,size=tiny,architecture.dropout=0.0]"
PLACE = Workload(vocabulary=50, length=16, batch=2)


def tiny_step() -> TrainingStep:
    task, plan = build_benchmark_model(composed_config(TINY.strip("[]").split(",")), PLACE)
    return TrainingStep(task, lambda batch: task.step(task.prepare(batch)).loss, plan.optimizer(task, True), PLACE)


def test_a_compiled_loss_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is the loss, after its FLOPs are counted: what is compiled shows none."""
    seen: list[str] = []
    count = models.flops_of
    monkeypatch.setattr(models, "flops_of", lambda call: seen.append("counted") or count(call))
    monkeypatch.setattr(torch, "compile", lambda loss: seen.append("compiled") or loss)
    step = tiny_step()
    plain = step.measure()
    step.compiled = True
    assert step.measure() == plain
    assert seen == ["counted", "counted", "compiled"]


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


def test_a_task_without_tokens_to_predict_is_refused() -> None:
    with pytest.raises(ConfigError, match="works only with task=language_modeling"):
        composed_config(["task=classification"])


def test_a_variant_is_chosen_as_for_train() -> None:
    chosen = variant_overrides({"attention": "bigbird", "block": 64, "position": "t5", "length": 9, "longest": 9})
    assert chosen == ["attention=bigbird", "position=t5", "attention.block=64"]

"""nanoGPT's setting for a GPU: `config/train_shakespeare_char.py`, over the defaults of its `train.py`."""

import math

import pytest

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.data.facts import Facts
from xformer.runs.summary import read_summary
from xformer.training.cost import trainable_parameters
from xformer.training.run import run

LR, LAST_LR, WARMUP, STEPS = 1e-3, 1e-4, 100, 5000


def nanogpt_lr(step: int) -> float:
    """`get_lr` of its `train.py`, whose warmup counts from the step before the first."""
    if step < WARMUP:
        return LR * (step + 1) / WARMUP
    ratio = (step - WARMUP) / (STEPS - WARMUP)
    return LAST_LR + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (LR - LAST_LR)


def test_it_is_nanogpt_s(compose_job: ComposeJob) -> None:
    config = compose_job("experiment=shakespeare_gpu").config
    assert dict(config.size) | {"_target_": ""} == {
        "_target_": "", "layers": 6, "heads": 6, "d_model": 384, "feed_forward": 4 * 384
    }  # fmt: skip
    assert (config.data.block, config.data.batch_size, config.trainer.accumulate_grad_batches) == (256, 64, 1)
    assert (config.architecture.dropout, config.task.tied_embeddings, config.position._target_.split(".")[-1]) == (
        0.2, True, "Learned"
    )  # fmt: skip
    assert (list(config.optimizer.betas), config.optimizer.weight_decay) == ([0.9, 0.99], 0.1)
    assert (config.trainer.max_steps, config.trainer.gradient_clip_val) == (STEPS, 1.0)
    assert (config.trainer.precision, config.trainer.val_check_interval) == ("bf16-mixed", 250)
    plan = Plan.of(config)
    for step in (0, 50, 99, 100, 101, 2500, STEPS - 1):
        assert config.optimizer.lr * plan.schedule(step, STEPS) == pytest.approx(nanogpt_lr(step))


def test_it_has_as_many_parameters(compose_job: ComposeJob) -> None:
    """10.65 M by its own count, which leaves out the positions."""
    plan = Plan.of(compose_job("experiment=shakespeare_gpu").config)
    plan.data.facts = Facts(vocabulary=65, length=256)
    assert trainable_parameters(plan.build_task()) - 256 * 384 == pytest.approx(10.65e6, rel=5e-3)


def test_it_runs(compose_job: ComposeJob) -> None:
    small = ["data.block=32", "data.batch_size=4", "trainer.max_steps=3", "trainer.val_check_interval=3"]
    job = compose_job("experiment=shakespeare_gpu", *SMALL, *small)
    run(job)
    summary = read_summary(job.directory)
    assert summary.status == "finished"
    assert job.config.trainer.precision == "bf16-mixed"
    assert summary.monitor is not None
    assert summary.monitor.name == "val/loss"

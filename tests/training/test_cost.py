"""What a model costs before it is trained, counted by hand."""

import pytest

from tests.conftest import SMALL, ComposeJob
from xformer.config.plan import Plan
from xformer.data.facts import Facts
from xformer.tasks.base import Task
from xformer.training.cost import trainable_parameters, training_flops_per_token

FACTS = Facts(vocabulary=50, length=16)


def built(compose_job: ComposeJob) -> Task:
    plan = Plan.of(compose_job(*SMALL, "task=language_modeling", "position=sinusoidal").config)
    plan.data.facts = FACTS
    return plan.build_task()


def test_only_what_is_trained_counts(compose_job: ComposeJob) -> None:
    task = built(compose_job)
    size = task.model.size
    d, f = size.d_model, size.feed_forward
    block = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d  # projections, feed-forward, two norms
    assert (
        trainable_parameters(task) == size.layers * block + 2 * d + FACTS.vocabulary * d
    )  # the output layer is the table
    task.model.embedding.requires_grad_(False)
    assert trainable_parameters(task) == size.layers * block + 2 * d


def test_flops_are_those_of_a_step_on_the_longest_sequence(compose_job: ComposeJob) -> None:
    """Kaplan et al. 2020, table 1: 6 for each weight of a matrix product, and the scores and mixing of all pairs."""
    task = built(compose_job)
    size = task.model.size
    weights = size.layers * (4 * size.d_model**2 + 2 * size.d_model * size.feed_forward)
    weights += size.d_model * FACTS.vocabulary
    attention = 12 * FACTS.length * size.d_model * size.layers
    assert training_flops_per_token(task, FACTS) == pytest.approx(6 * weights + attention)
    assert all(parameter.grad is None for parameter in task.parameters())  # and nothing is left behind

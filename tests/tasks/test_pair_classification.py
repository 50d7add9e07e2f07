"""Two towers that are one."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.conftest import SMALL, ComposeJob
from tests.test_lra import pairs
from xformer.config.plan import Plan
from xformer.data.batch import PairClassificationBatch
from xformer.errors import IncompatibleError
from xformer.inspection.attention_calls import attention_calls
from xformer.inspection.probes.attention_entropy import AttentionEntropy
from xformer.inspection.probes.base import single_examples
from xformer.tasks.pair_classification import PairClassification
from xformer.training.run import run

PAIRS = [*SMALL, "task=pair_classification", "data.batch_size=8"]


@pytest.fixture
def task(compose_job: ComposeJob, tmp_path: Path) -> PairClassification:
    plan = Plan.of(compose_job(*PAIRS, *pairs(tmp_path), "architecture.dropout=0.0").config)
    plan.load_data()
    task = plan.build_task()
    assert isinstance(task, PairClassification)
    return task.eval()


def batch() -> PairClassificationBatch:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(256, (3, length), generator=generator) for length in (7, 11))
    mask = torch.arange(11) < torch.tensor([[11], [4], [9]])
    return PairClassificationBatch(first, None, second, mask, torch.tensor([0, 1, 1]))


def test_the_logits_are_those_of_the_four_joined_vectors(task: PairClassification) -> None:
    pair = batch()
    for row in range(3):
        u = task.model(pair.first_tokens[row : row + 1])[0].mean(0)
        v = task.model(pair.second_tokens[row : row + 1, pair.second_padding_mask[row]])[0].mean(0)
        hidden = (task.join.weight @ torch.cat([u, v, u * v, u - v]) + task.join.bias).clamp(min=0)
        assert_close(task(*pair[:4])[row], task.head.weight @ hidden + task.head.bias, atol=1e-5, rtol=1e-5)


def test_no_document_sees_the_other_before_they_are_joined(task: PairClassification) -> None:
    pair = batch()
    read = task.read(pair.first_tokens, None)
    assert_close(task.read(pair.first_tokens.flip(0), None).flip(0), read)
    swapped = task(pair.second_tokens, pair.second_padding_mask, pair.first_tokens, None)
    assert not torch.allclose(swapped, task(*pair[:4]))


def test_the_loss_is_cross_entropy(task: PairClassification) -> None:
    pair = batch()
    outcome = task.step(pair)
    expected = -torch.log_softmax(task(*pair[:4]), -1)[torch.arange(3), pair.labels].mean()
    assert_close(outcome.loss, expected)


def test_both_passes_of_a_layer_are_probed_as_one(task: PairClassification) -> None:
    calls = attention_calls(task.model, lambda: task.step(batch()))
    assert [(call.layer, call.query.shape[2]) for call in calls] == [(0, 7), (0, 11)]
    (example,) = single_examples(batch(), 1)
    found = AttentionEntropy(examples=1).measure(task, [example])
    assert set(found) == {f"attention_entropy/self/layer0/head{head}" for head in range(2)}


def test_single_sequences_are_refused(compose_job: ComposeJob) -> None:
    with pytest.raises(IncompatibleError, match="what would work: data=retrieval_lra"):
        run(compose_job(*SMALL, "task=pair_classification", "data=listops"))

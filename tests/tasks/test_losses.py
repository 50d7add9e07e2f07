"""The losses of classification against torch's own and against the paper's formula, written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from xformer.tasks.losses import CrossEntropy, Focal

WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def example(seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(8, classes, generator=generator, dtype=torch.double)
    return logits, torch.randint(classes, (8,), generator=generator)


@pytest.mark.parametrize("weights", [None, WEIGHTS.double()], ids=["alike", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_without_gamma_and_cross_entropy_are_torchs(weights, smoothing):
    logits, labels = example()
    expected = cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    for loss in (CrossEntropy(), Focal(gamma=0.0)):
        assert_close(loss(logits, labels, weights=weights, label_smoothing=smoothing), expected)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), gamma=st.sampled_from([0.5, 1.0, 2.0, 5.0]), weighted=st.booleans())
def test_focal_is_the_papers_formula(seed, gamma, weighted):
    logits, labels = example(seed)
    total = divisor = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        p = (row.exp() / row.exp().sum())[label]
        alpha = WEIGHTS[label].item() if weighted else 1.0
        total = total - alpha * (1 - p) ** gamma * p.log()  # equation 5
        divisor += alpha
    weights = WEIGHTS.double() if weighted else None
    assert_close(Focal(gamma=gamma)(logits, labels, weights=weights, label_smoothing=0.0), total / divisor)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_finite_gradients_where_the_model_is_sure(gamma):
    logits = torch.tensor([[90.0, -90.0], [90.0, -90.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.tensor([0, 1]), weights=None, label_smoothing=0.0)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0.1


def test_focal_lets_a_sure_answer_count_less():
    sure, unsure = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    label = torch.tensor([0])

    def ratio(loss):
        costs = [loss(logits, label, weights=None, label_smoothing=0.0) for logits in (sure, unsure)]
        return costs[0] / costs[1]

    assert ratio(Focal(gamma=2.0)) < 0.1 * ratio(CrossEntropy())

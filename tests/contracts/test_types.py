"""What a model computes in is what its parameters are of, or float32 where those have 16 bits: nothing else decides."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.contracts.test_combinations import ALLOWED, Combination, create, sampled, tokens
from tests.contracts.variants import attention_class
from xformer.architecture.stack import Stack
from xformer.config.validate import CONF, groups
from xformer.core.capability import Capability
from xformer.data.facts import Facts
from xformer.position.alibi import ALiBi
from xformer.position.base import PositionContext
from xformer.tasks.class_weights import resolve_class_weights
from xformer.tasks.losses import CrossEntropy, Focal, Loss

LENGTH, CLASSES = 13, 3
LOSSES: dict[str, Loss] = {
    name: instantiate(OmegaConf.load(CONF / "loss" / f"{name}.yaml")) for name in groups()["loss"]
}


class Narrow(TorchDispatchMode):
    """The operations whose results have fewer bits than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64:
                self.found.add(f"{func} -> {leaf.dtype}")
        return made


def losses(model: Stack, real: Tensor | None) -> Iterator[Tensor]:
    """Every loss of a head on the hidden states' mean, with weights and smoothing and without."""
    hidden = model(tokens(2, LENGTH), real)
    logits, labels = hidden.mean(dim=1)[:, :CLASSES], torch.tensor([0, 2])
    weights = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64)
    for loss, weight, smoothing in itertools.product(LOSSES.values(), (None, weights), (0.0, 0.1)):
        yield loss(logits, labels, weights=weight, label_smoothing=smoothing)


def masks(combination: Combination) -> list[Tensor | None]:
    padded = torch.arange(LENGTH) < torch.tensor([[LENGTH], [5]])
    return [None, padded] if Capability.PADDING in attention_class(combination[0]).provides else [None]


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_a_float64_model_computes_nothing_in_fewer_bits(combination: Combination) -> None:
    model = create(combination).double()
    for real in masks(combination):
        with Narrow() as narrow:
            sum(losses(model, real)).backward()  # type: ignore[union-attr]
        assert not narrow.found


def test_the_instrument_sees_an_island() -> None:
    with Narrow() as narrow:
        torch.ones(3, dtype=torch.float64).float().double()
    assert narrow.found == {"aten._to_copy.default -> torch.float32"}


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("combination", sampled(ALLOWED))
def test_torchs_default_type_changes_nothing(combination: Combination) -> None:
    """It has 16 bits in every step under `trainer.precision=bf16-true`."""
    model = create(combination)
    for real in masks(combination):
        expected = list(losses(model, real))
        with default(torch.bfloat16):
            found = list(losses(model, real))
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 20, 64])
def test_alibi_has_the_slopes_of_its_own_precision(heads: int) -> None:
    below = 2 ** (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * i / below) for i in range(1, below + 1)]
    slopes += [2.0 ** (-4 * i / below) for i in range(1, 2 * (heads - below), 2)]
    for dtype, wide in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        alibi = ALiBi(PositionContext(heads * 4, heads, 4, 1, 16, True)).to(dtype)
        found = alibi.bias(0).slopes
        assert found.dtype == wide
        assert_close(found, torch.tensor(slopes, dtype=wide), atol=0, rtol=4 * torch.finfo(wide).eps)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_losses_are_exact_in_float64(gamma: float, smoothing: float) -> None:
    """Against Lin et al. 2017, equation 5, number by number."""
    torch.manual_seed(0)
    logits, labels, counts = torch.randn(6, CLASSES, dtype=torch.float64), [0, 1, 2, 2, 1, 1], [3, 7, 11]
    weights = [21 / (CLASSES * count) for count in counts]
    costs = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        total = math.fsum(map(math.exp, row))
        for c, logit in enumerate(row):
            p, share = math.exp(logit) / total, (1 - smoothing) * (c == label) + smoothing / CLASSES
            costs -= share * weights[c] * (1 - p) ** gamma * math.log(p)
    resolved = resolve_class_weights("balanced", Facts(vocabulary=5, length=4, classes=CLASSES, class_counts=counts))
    about: dict[str, Any] = {"weights": resolved, "label_smoothing": smoothing}
    found = [Focal(gamma=gamma)(logits, torch.tensor(labels), **about)]
    if gamma == 0:
        found.append(CrossEntropy()(logits, torch.tensor(labels), **about))
    expected = torch.tensor(costs / sum(weights[label] for label in labels), dtype=torch.float64)
    for loss in found:
        assert_close(loss, expected, atol=1e-14, rtol=0)

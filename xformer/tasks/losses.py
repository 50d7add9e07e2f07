"""Classification losses: cross-entropy and focal loss.

All take class weights and label smoothing, and average as torch's `cross_entropy` does: over the weights of the labels.
They use logits in float32 or wider, whatever the model's type: in 16 bits a loss has only two or three digits.
"""

from abc import ABC, abstractmethod
from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import one_hot

from xformer.core.precision import at_least_float32
from xformer.data.batch import IGNORED


def cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    weights: Float[Tensor, " classes"] | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """PyTorch's cross-entropy, in nats, computed in float32 at least.

    Args:
        logits: the logits of the classes.
        labels: the labels, of which `IGNORED` ones do not count, or a distribution for each.
        weights: the weight of each class; None for equal weights.
        label_smoothing: the probability spread over all classes.
        reduction: `mean`, over the labels' weights, or `sum`.
    """
    precise = at_least_float32(logits)
    weights = None if weights is None else weights.to(precise.dtype)
    if labels.is_floating_point():
        labels = labels.to(precise.dtype)
    return functional.cross_entropy(
        precise, labels, weights, ignore_index=IGNORED, reduction=reduction, label_smoothing=label_smoothing
    )


class Loss(ABC):
    """The base class of losses: a mean over the labels of a batch."""

    @abstractmethod
    def __call__(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        *,
        weights: Float[Tensor, " classes"] | None,
        label_smoothing: float,
    ) -> Float[Tensor, ""]:
        """Compute the loss in nats.

        Args:
            logits: the logits of the classes.
            labels: the labels.
            weights: the weight of each class; None for equal weights.
            label_smoothing: the probability spread over all classes.
        """


class CrossEntropy(Loss):
    """Cross-entropy: the negative logarithm of the label's probability."""

    def __call__(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        *,
        weights: Float[Tensor, " classes"] | None,
        label_smoothing: float,
    ) -> Float[Tensor, ""]:
        """Compute the weighted mean over the labels."""
        return cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)


class Focal(Loss):
    """Focal loss: cross-entropy times (1 - p)^gamma, with p the class's probability (Lin et al. 2017, equation 5).

    With a smoothed label, every class's share of the target has its own factor.

    Args:
        gamma: reduces the weight of well-classified examples; 0 is cross-entropy.
    """

    def __init__(self, *, gamma: Annotated[float, Ge(0)]) -> None:
        self.gamma = gamma

    def __call__(
        self,
        logits: Float[Tensor, "batch classes"],
        labels: Int[Tensor, " batch"],
        *,
        weights: Float[Tensor, " classes"] | None,
        label_smoothing: float,
    ) -> Float[Tensor, ""]:
        """Compute the weighted mean over the labels."""
        classes = logits.shape[-1]
        log = at_least_float32(logits).log_softmax(-1)
        target = one_hot(labels, classes).to(log.dtype) * (1 - label_smoothing) + label_smoothing / classes
        weights = log.new_ones(classes) if weights is None else weights.to(log.dtype)
        # 1 - p from the logarithm: exact where p is close to 1, and its power has a finite gradient there.
        doubt = (-log.expm1()).clamp(min=1e-12)
        costs = -(target * weights * doubt**self.gamma * log).sum(-1)
        return costs.sum() / weights[labels].sum()

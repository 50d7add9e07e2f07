"""Metrics over sequences of labels, some of which are ignored."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from xformer.data.batch import IGNORED
from xformer.tasks.losses import cross_entropy


class SummedMetric(Metric):
    """Base class of metrics that sum over batches; their sums keep their precision if the model is cast to 16 bits.

    Torchmetrics protects its states if a model is cast by `half` or `bfloat16`, but not if it is cast by `to`, as
    Lightning does for `trainer.precision=bf16-true`.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)


class TokenAccuracy(SummedMetric):
    """Token accuracy: the share of labels that are the most likely token; `IGNORED` labels do not count."""

    higher_is_better = True
    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> None:
        """Update with a batch."""
        valid = labels != IGNORED
        self.right += ((logits.argmax(-1) == labels) & valid).sum()
        self.total += valid.sum()

    def compute(self) -> Tensor:
        """The accuracy."""
        return self.right.float() / self.total  # as a quotient of whole numbers is of torch's default type


class SequenceAccuracy(TokenAccuracy):
    """Sequence accuracy: the share of sequences in which every label is the most likely token.

    With teacher forcing. Except for ties, this is the share of sequences that greedy decoding generates exactly.
    """

    def update(self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> None:
        """Update with a batch."""
        self.right += ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(dim=1).sum()
        self.total += len(labels)


class Perplexity(SummedMetric):
    """Perplexity: the exponential of the mean loss over all labels; `IGNORED` labels do not count."""

    higher_is_better = False
    full_state_update = False
    nats: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> None:
        """Update with a batch."""
        self.nats = self.nats + cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        self.total += (labels != IGNORED).sum()

    def compute(self) -> Tensor:
        """The perplexity."""
        return (self.nats / self.total).exp()


class BitsPerByte(Perplexity):
    """Bits per byte of the labels' text, which compares models with different tokenizers.

    Gao et al. 2020, "The Pile", section 3.1: (L_T / L_B) l / ln 2, with L_T labels of a mean loss of l nats that stand
    for L_B bytes. Over a whole split these are all its nats, in bits, by all its bytes.

    Args:
        tokens_per_byte: L_T / L_B of the split.
    """

    def __init__(self, tokens_per_byte: float) -> None:
        super().__init__()
        self.tokens_per_byte = tokens_per_byte

    def compute(self) -> Tensor:
        """The bits per byte."""
        return self.nats / self.total / math.log(2) * self.tokens_per_byte


class MacroF1(MulticlassF1Score):
    """Macro F1: the mean F1 score of the classes that occur as predictions or labels, counted on the device.

    torchmetrics counts with `bincount`, which waits for a GPU at every batch.

    Args:
        classes: the number of classes.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="macro", validate_args=False)

    def update(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> None:
        """Update with a batch."""
        classes = torch.arange(logits.shape[-1], device=logits.device)
        predicted, actual = logits.argmax(-1)[:, None] == classes, labels[:, None] == classes  # batch classes
        self.tp = self.tp + (predicted & actual).sum(0)
        self.fp = self.fp + (predicted & ~actual).sum(0)
        self.fn = self.fn + (~predicted & actual).sum(0)
        self.tn = self.tn + (~predicted & ~actual).sum(0)


def classification_metrics(classes: int, prefix: str) -> MetricCollection:
    """Accuracy, and the mean of the classes' F1 scores."""
    accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)  # to check them is to wait
    return MetricCollection({"accuracy": accuracy, "macro_f1": MacroF1(classes)}, prefix=prefix, compute_groups=False)

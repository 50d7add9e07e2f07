"""Metrics over sequences of labels, of which some stand for none."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from xformer.data.batch import IGNORED


class TokenAccuracy(Metric):
    """The share of labels that are the most likely token; `IGNORED` ones do not count."""

    higher_is_better = True
    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> None:
        """Take in a batch."""
        counts = labels != IGNORED
        self.right += ((logits.argmax(-1) == labels) & counts).sum()
        self.total += counts.sum()

    def compute(self) -> Tensor:
        """The share."""
        return self.right / self.total


class SequenceAccuracy(TokenAccuracy):
    """The share of sequences in which every label is the most likely token.

    The model has read the labels before each; so, ties aside, it is the share that greedy decoding writes exactly.
    """

    def update(self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> None:
        """Take in a batch."""
        self.right += ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(dim=1).sum()
        self.total += len(labels)

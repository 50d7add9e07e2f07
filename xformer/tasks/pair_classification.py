"""Classification of pairs of sequences, each read on its own (the Long Range Arena's retrieval, Tay et al. 2021).

With u and v what is read of the two,

    logits = W2 relu(W1 [u; v; u * v; u - v])

as in the arena's code and in Nystromformer's. One model reads both; no attention crosses from one to the other.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xformer.architecture.base import ArchitectureFactory
from xformer.core.linear import Linear
from xformer.data.batch import Batch, PairClassificationBatch
from xformer.data.spec import DataSpec
from xformer.layers.pooling import PoolingName
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome
from xformer.tasks.class_weights import ClassWeights
from xformer.tasks.classification import Classification
from xformer.tasks.losses import Loss


class PairClassification(Classification):
    """Pair classification: a stack and a pooling for each sequence, and two linear layers; args as `Classification`."""

    batch_type: ClassVar[type[Batch]] = PairClassificationBatch

    def __init__(
        self,
        spec: DataSpec,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        pooling: PoolingName,
        loss: Loss,
        class_weights: ClassWeights | None,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
    ) -> None:
        super().__init__(
            spec,
            architecture,
            optimizer,
            schedule,
            pooling=pooling,
            loss=loss,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
        )
        assert spec.classes is not None
        size = self.model.size
        self.join = Linear(4 * size.d_model, size.feed_forward)
        self.head = Linear(size.feed_forward, spec.classes)

    def forward(  # type: ignore[override]
        self,
        first_tokens: Int[Tensor, "batch first"],
        first_padding_mask: Bool[Tensor, "batch first"] | None,
        second_tokens: Int[Tensor, "batch second"],
        second_padding_mask: Bool[Tensor, "batch second"] | None,
    ) -> Float[Tensor, "batch classes"]:
        """The logits of a batch."""
        u, v = self.read(first_tokens, first_padding_mask), self.read(second_tokens, second_padding_mask)
        logits: Tensor = self.head(nn.functional.relu(self.join(torch.cat((u, v, u * v, u - v), dim=-1))))
        return logits

    def step(self, batch: PairClassificationBatch) -> Outcome:  # type: ignore[override]
        """Compute the loss in nats: the configured loss in training, cross-entropy in evaluation."""
        *sequences, labels = batch
        return self.outcome(self(*sequences), labels)

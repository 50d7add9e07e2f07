"""Sequence classification."""

from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from xformer.architecture.base import ArchitectureFactory
from xformer.data.batch import Batch, ClassificationBatch
from xformer.data.facts import Facts
from xformer.errors import ConfigError
from xformer.layers.embedding import Embedding
from xformer.layers.linear import Linear
from xformer.layers.pooling import ClassTokenPooling, MeanPooling, PoolingName
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome, Task


class Classification(Task):
    """A stack, a pooling and a linear layer, trained on cross-entropy.

    Args:
        facts: of data with classes.
        architecture: builds the stack.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
        pooling: `mean` over the real tokens, or the state of a `class` token put in front.
        label_smoothing: share of the target given to all classes, in training alone.

    Raises:
        ConfigError: a class token in front of a causal stack, where it would see only itself.
    """

    takes: ClassVar[type[Batch]] = ClassificationBatch

    def __init__(
        self,
        facts: Facts,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        pooling: PoolingName,
        label_smoothing: float,
    ) -> None:
        super().__init__(facts, optimizer, schedule)
        assert facts.classes is not None
        self.pooling = ClassTokenPooling(facts.vocabulary) if pooling == "class" else MeanPooling()
        extra = self.pooling.extra_tokens
        self.model = architecture(lambda d_model: Embedding(facts.vocabulary + extra, d_model), facts.length + extra)
        if extra and self.model.causal:
            raise ConfigError(
                "task.pooling=class puts a token in front, which sees nothing else in a causal architecture; "
                "task.pooling=mean would work."
            )
        self.head = Linear(self.model.size.d_model, facts.classes)
        self.label_smoothing = label_smoothing

    def build_metrics(self, facts: Facts, prefix: str) -> MetricCollection:
        """Accuracy."""
        return MetricCollection({"accuracy": MulticlassAccuracy(facts.classes, average="micro")}, prefix=prefix)

    def forward(
        self, tokens: Int[Tensor, "batch length"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch classes"]:
        """The logits of a batch."""
        tokens, padding_mask = self.pooling.prepare(tokens, padding_mask)
        logits: Tensor = self.head(self.pooling.pool(self.model(tokens, padding_mask), padding_mask))
        return logits

    def step(self, batch: ClassificationBatch) -> Outcome:
        """Cross-entropy in nats."""
        logits = self(batch.tokens, batch.padding_mask)
        smoothing = self.label_smoothing if self.training else 0.0
        return Outcome(cross_entropy(logits, batch.labels, label_smoothing=smoothing), logits, batch.labels)

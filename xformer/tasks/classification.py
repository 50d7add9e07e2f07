"""Sequence classification."""

from typing import Annotated, ClassVar

from annotated_types import Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.core.embedding import Embedding
from xformer.core.linear import Linear
from xformer.core.precision import at_least_float32
from xformer.data.batch import Batch, ClassificationBatch
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError
from xformer.layers.pooling import ClassTokenPooling, MeanPooling, PoolingName
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome, Task
from xformer.tasks.class_weights import ClassWeights, resolve_class_weights
from xformer.tasks.losses import Loss, cross_entropy
from xformer.tasks.metrics import classification_metrics


class Classification(Task):
    """Sequence classification by a stack, a pooling and a linear layer.

    Weights, smoothing and the kind of loss only affect training: the loss in evaluation is cross-entropy in nats.

    Args:
        spec: the specification of data with classes.
        architecture: builds the stack.
        optimizer: builds the optimiser.
        schedule: the factor on the learning rate at each step.
        pooling: `mean` over the tokens without padding, or the state of a prepended `class` token.
        loss: the training loss.
        class_weights: the weight of each class in the loss: a list, `balanced` by the training labels, or None.
        label_smoothing: the probability spread over all classes in the targets, only in training.

    Raises:
        ConfigError: a class token precedes a causal stack, where it would see only itself; the class weights do not
            suit the data; or the label smoothing is out of range.
    """

    batch_type: ClassVar[type[Batch]] = ClassificationBatch

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
        super().__init__(spec, optimizer, schedule)
        assert spec.classes is not None
        self.pooling = ClassTokenPooling(spec.vocabulary) if pooling == "class" else MeanPooling()
        extra = self.pooling.extra_tokens
        self.model = architecture(lambda d_model: Embedding(spec.vocabulary + extra, d_model), spec.length + extra)
        if extra and self.model.causal:
            raise ConfigError(
                "task.pooling=class reads the first token, which sees no other token in a causal architecture; "
                "task.pooling=mean would work."
            )
        self.head = Linear(self.model.size.d_model, spec.classes)
        self.loss, self.label_smoothing = loss, label_smoothing
        self.class_weights = resolve_class_weights(
            class_weights, spec
        )  # not a buffer, which a cast of the model would round

    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
        """Accuracy, and the mean of the classes' F1 scores."""
        assert spec.classes is not None
        return classification_metrics(spec.classes, prefix)

    def forward(
        self, tokens: Int[Tensor, "batch length"], padding_mask: Bool[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """The logits of a batch."""
        logits: Tensor = self.head(self.read(tokens, padding_mask))
        return logits

    def read(
        self, tokens: Int[Tensor, "batch length"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch d_model"]:
        """Encode and pool a batch: one vector for each sequence."""
        tokens, padding_mask = self.pooling.prepare(tokens, padding_mask)
        return self.pooling.pool(self.model(tokens, padding_mask), padding_mask)

    def step(self, batch: ClassificationBatch) -> Outcome:
        """Compute the loss in nats: the configured loss in training, cross-entropy in evaluation."""
        return self.outcome(self(batch.tokens, batch.padding_mask), batch.labels)

    def outcome(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Outcome:
        """The outcome of a step, from its logits."""
        if self.training:
            smoothing = self.label_smoothing
            if self.class_weights is not None and self.class_weights.device != logits.device:  # once
                self.class_weights = self.class_weights.to(at_least_float32(logits))
            loss = self.loss(logits, labels, weights=self.class_weights, label_smoothing=smoothing)
        else:
            loss = cross_entropy(logits, labels)
        return Outcome(loss, logits, labels)

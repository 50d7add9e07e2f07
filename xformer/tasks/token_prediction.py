"""The base class of tasks that predict tokens: embedding, output layer and loss."""

from typing import Annotated, ClassVar, cast

from annotated_types import Interval
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import ModuleList
from torch.nn.functional import linear
from torchmetrics import MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.stack import Stack
from xformer.core.embedding import Embedding
from xformer.core.linear import Linear
from xformer.data.base import DataModule
from xformer.data.batch import Batch
from xformer.data.spec import DataSpec
from xformer.errors import IncompatibleError
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Task
from xformer.tasks.losses import cross_entropy


class TokenPrediction(Task):
    """A model of tokens whose output layer scores every token of the vocabulary.

    Args:
        spec: the specification of the data.
        architecture: builds the model.
        optimizer: builds the optimiser.
        schedule: the factor on the learning rate at each step.
        tied_embeddings: whether the output layer is the token table (Press & Wolf 2017).
        label_smoothing: the probability spread over all tokens in the targets, only in training.

    Raises:
        IncompatibleError: the data are to be tested at lengths that the model cannot read.
    """

    extra_tokens: ClassVar[int] = 0
    """Additional ids after those of the data, which the model reads but never predicts."""

    def __init__(
        self,
        spec: DataSpec,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        self.vocabulary = spec.vocabulary
        rows = spec.vocabulary + self.extra_tokens
        self.model = architecture(lambda d_model: Embedding(rows, d_model), spec.length)
        self.head = None if tied_embeddings else Linear(self.model.size.d_model, spec.vocabulary, bias=False)
        self.label_smoothing = label_smoothing
        self._measure(spec)

    def setup(self, stage: str) -> None:
        """Set up metrics for the current data; a trained model may be tested on other data than its own.

        Raises:
            IncompatibleError: `data.test_blocks` has lengths that the model cannot read.
        """
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule) and stage != "fit":
            self._measure(data.spec)

    def _measure(self, spec: DataSpec) -> None:
        self._refuse_longer(spec)
        self.val_metrics, self.test_metrics = (self.build_metrics(spec, f"{stage}/") for stage in ("val", "test"))
        self.test_suffixes = ["", *(f"@{length}" for length in spec.test_lengths)]
        self.longer_metrics = ModuleList(self.test_metrics.clone(postfix=suffix) for suffix in self.test_suffixes[1:])

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """One test batch, of the training length or of another one."""
        metrics = [self.test_metrics, *self.longer_metrics][dataloader_idx]
        self._evaluate(batch, "test", cast(MetricCollection, metrics), self.test_suffixes[dataloader_idx])

    def _refuse_longer(self, spec: DataSpec) -> None:
        longest = max(spec.test_lengths, default=0)
        if isinstance(self.model, Stack) and longest > self.model.max_length and not self.model.extrapolates:
            raise IncompatibleError(
                f"data.test_blocks has {longest} tokens and the model is built for {self.model.max_length}: "
                f"{' and '.join(self.model.tower.limited_by)} is not defined beyond that; position=sinusoidal with "
                "attention=full would work."
            )

    def logits(self, hidden: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of hidden states."""
        if self.head is None:
            return linear(hidden, cast(Embedding, self.model.embedding).weight[: self.vocabulary])
        logits: Tensor = self.head(hidden)
        return logits

    def loss(
        self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy in nats per label that is not `IGNORED`."""
        smoothing = self.label_smoothing if self.training else 0.0
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)

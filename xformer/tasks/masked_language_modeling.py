"""Masked language modelling: predict masked tokens (Devlin et al. 2019, section 3.1)."""

from typing import Annotated, ClassVar

from annotated_types import Interval
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.stack import Stack
from xformer.data.batch import Batch, LanguageModelingBatch
from xformer.data.spec import DataSpec
from xformer.errors import IncompatibleError
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome
from xformer.tasks.masking import MaskingConfig, MaskingDraws, content_draws, mask_tokens, masking_draws, send_to_device
from xformer.tasks.metrics import Perplexity, TokenAccuracy
from xformer.tasks.token_prediction import TokenPrediction


class MaskedLanguageModeling(TokenPrediction):
    """Masked language modelling by a bidirectional stack, which predicts the tokens at selected positions.

    The selected tokens depend in training on the seed, the epoch, the batch and the place in the batch, not on the
    model, the number of devices or resumption. In evaluation they depend only on the sequence, so they are the same in
    every validation of every run. Perplexity is that of the selected tokens.

    Arguments not listed are those of `TokenPrediction`.

    Args:
        masking: the share of tokens to predict, and their replacements.

    Raises:
        IncompatibleError: the architecture is causal.
    """

    batch_type: ClassVar[type[Batch]] = LanguageModelingBatch
    extra_tokens: ClassVar[int] = 1

    model: Stack

    def __init__(
        self,
        spec: DataSpec,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
        masking: MaskingConfig,
    ) -> None:
        super().__init__(
            spec,
            architecture,
            optimizer,
            schedule,
            tied_embeddings=tied_embeddings,
            label_smoothing=label_smoothing,
        )
        if self.model.causal:
            raise IncompatibleError(
                "task=masked_language_modeling does not go with a causal architecture, which would predict a token "
                "only from those before it; what would work: architecture=encoder."
            )
        self.masking = masking
        self._batch = (0, 0)

    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
        """Accuracy at the selected positions; in evaluation, also perplexity."""
        metrics: dict[str, Metric | MetricCollection] = {"accuracy": TokenAccuracy()}
        if prefix != "train/":  # where a batch is logged, and processes would average their perplexities
            metrics["perplexity"] = Perplexity()
        return MetricCollection(metrics, prefix=prefix, compute_groups=[[name] for name in metrics])

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Record the batch's number, which decides its masks."""
        super().on_train_batch_start(batch, index)
        self._batch = (self.trainer.current_epoch, index)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the original token at every position."""
        return self.logits(self.model(tokens))

    def prepare(self, batch: LanguageModelingBatch) -> LanguageModelingBatch:
        """Mask some tokens and make these the labels; the batch's own labels are not used."""
        how, drawn = self.masking, self._draws(batch.tokens)
        tokens, labels = mask_tokens(
            batch.tokens, drawn, mask_id=self.vocabulary, rate=how.rate, hidden=how.hidden, random=how.random
        )
        return LanguageModelingBatch(tokens, labels)

    def step(self, batch: LanguageModelingBatch) -> Outcome:
        """Compute the cross-entropy in nats per selected token."""
        logits = self(batch.tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    def _draws(self, tokens: Int[Tensor, "batch length"]) -> MaskingDraws:
        if not self.training:
            return content_draws(tokens)
        # All of the global batch's, of which each process takes the rows that its sampler gave it.
        rank, world = (self.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        drawn = masking_draws((self.masking.seed, *self._batch), (world * len(tokens), tokens.shape[1]))
        return MaskingDraws(
            *(send_to_device(each[rank * len(tokens) :][: len(tokens)], tokens.device) for each in drawn)
        )

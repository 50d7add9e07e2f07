"""Masked language modelling: restore what was hidden (Devlin et al. 2019, section 3.1)."""

from typing import Annotated, ClassVar

from annotated_types import Ge, Interval
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.stack import Stack
from xformer.data.batch import Batch, LanguageModelingBatch
from xformer.data.facts import Facts
from xformer.errors import ConfigError, IncompatibleError
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome
from xformer.tasks.masking import MaskingDraws, content_draws, mask_tokens, masking_draws, send_to_device
from xformer.tasks.metrics import Perplexity, TokenAccuracy
from xformer.tasks.token_prediction import TokenPrediction


class MaskedLanguageModeling(TokenPrediction):
    """A bidirectional stack that predicts the tokens at chosen places, of which most are hidden from it.

    What is chosen in training depends on the seed, the epoch, the batch and the place in the batch: not on the model,
    the number of devices or a resume. In evaluation it depends on the sequence alone, so that every validation of every
    run asks for the same tokens. Perplexity is that of the chosen tokens.

    Args:
        facts: of the data.
        architecture: builds the model.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
        tied_embeddings: whether the output layer is the token table (Press & Wolf 2017).
        label_smoothing: share of the target given to all tokens, in training alone.
        rate: share of a sequence's tokens that are chosen, at least one; 0.15 in the paper.
        hidden: share of the chosen that become the mask token; 0.8 in the paper.
        random: share of the chosen that become any token; 0.1 in the paper. The rest stay as they are.
        seed: of the masks in training.

    Raises:
        ConfigError: the shares of hidden and random tokens exceed 1 together.
        IncompatibleError: the architecture is causal.
    """

    batch_type: ClassVar[type[Batch]] = LanguageModelingBatch
    extra_tokens: ClassVar[int] = 1

    model: Stack

    def __init__(
        self,
        facts: Facts,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
        rate: Annotated[float, Interval(gt=0, le=1)],
        hidden: Annotated[float, Interval(ge=0, le=1)],
        random: Annotated[float, Interval(ge=0, le=1)],
        seed: Annotated[int, Ge(0)],
    ) -> None:
        if hidden + random > 1:
            raise ConfigError(
                f"task.hidden={hidden} and task.random={random} are shares of the same tokens: together at most 1."
            )
        super().__init__(
            facts,
            architecture,
            optimizer,
            schedule,
            tied_embeddings=tied_embeddings,
            label_smoothing=label_smoothing,
        )
        if self.model.causal:
            raise IncompatibleError(
                "task=masked_language_modeling does not go with a causal architecture, which would restore a token "
                "from those before it alone; what would work: architecture=encoder."
            )
        self.rate, self.hidden, self.random, self.seed = rate, hidden, random, seed
        self._batch = (0, 0)

    def build_metrics(self, facts: Facts, prefix: str) -> MetricCollection:
        """Accuracy of the most likely token at the chosen places; in evaluation, their perplexity."""
        metrics: dict[str, Metric | MetricCollection] = {"accuracy": TokenAccuracy()}
        if prefix != "train/":  # where a batch is logged, and processes would average their perplexities
            metrics["perplexity"] = Perplexity()
        return MetricCollection(metrics, prefix=prefix, compute_groups=[[name] for name in metrics])

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Note which batch it is, for its masks."""
        super().on_train_batch_start(batch, index)
        self._batch = (self.trainer.current_epoch, index)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the token that belongs at every position."""
        return self.logits(self.model(tokens))

    def prepare(self, batch: LanguageModelingBatch) -> LanguageModelingBatch:
        """Tokens of which some are hidden, and these as labels; the batch's own labels are not used."""
        tokens, labels = mask_tokens(
            batch.tokens,
            self._draws(batch.tokens),
            mask_id=self.vocabulary,
            rate=self.rate,
            hidden=self.hidden,
            random=self.random,
        )
        return LanguageModelingBatch(tokens, labels)

    def step(self, batch: LanguageModelingBatch) -> Outcome:
        """Cross-entropy in nats per chosen token."""
        logits = self(batch.tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    def _draws(self, tokens: Int[Tensor, "batch length"]) -> MaskingDraws:
        if not self.training:
            return content_draws(tokens)
        # All of the global batch's, of which each process takes the rows that its sampler gave it.
        rank, world = (self.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        drawn = masking_draws((self.seed, *self._batch), (world * len(tokens), tokens.shape[1]))
        return MaskingDraws(
            *(send_to_device(each[rank * len(tokens) :][: len(tokens)], tokens.device) for each in drawn)
        )

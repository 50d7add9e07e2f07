"""What tasks share that predict tokens: embedding, output layer, loss."""

from typing import cast

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from xformer.architecture.base import ArchitectureFactory
from xformer.data.batch import IGNORED
from xformer.data.facts import Facts
from xformer.layers.embedding import Embedding
from xformer.layers.linear import Linear
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Task


class TokenPrediction(Task):
    """A model of tokens whose output layer scores every token of the vocabulary.

    Args:
        facts: of the data.
        architecture: builds the model.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
        tied_embeddings: whether the output layer is the token table (Press & Wolf 2017).
        label_smoothing: share of the target given to all tokens, in training alone.
    """

    def __init__(
        self,
        facts: Facts,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: float,
    ) -> None:
        super().__init__(facts, optimizer, schedule)
        self.model = architecture(lambda d_model: Embedding(facts.vocabulary, d_model), facts.length)
        self.head = None if tied_embeddings else Linear(self.model.size.d_model, facts.vocabulary, bias=False)
        self.label_smoothing = label_smoothing

    def logits(self, hidden: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of hidden states."""
        if self.head is None:
            return linear(hidden, cast(Embedding, self.model.embedding).weight)
        logits: Tensor = self.head(hidden)
        return logits

    def loss(
        self, logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy in nats per label that is not `IGNORED`."""
        smoothing = self.label_smoothing if self.training else 0.0
        flat = logits.flatten(0, 1), labels.flatten()
        return cross_entropy(*flat, ignore_index=IGNORED, label_smoothing=smoothing)

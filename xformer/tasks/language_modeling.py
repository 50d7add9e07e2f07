"""Autoregressive language modelling."""

from typing import Any, ClassVar, cast

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.stack import Stack
from xformer.data.base import DataModule
from xformer.data.batch import Batch, LanguageModelingBatch
from xformer.data.text import Text
from xformer.decoding.sampling import sample
from xformer.layers.embedding import Embedding
from xformer.layers.linear import Linear
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome, Task

PROMPT_TOKENS, SAMPLE_TOKENS = 16, 300


class LanguageModeling(Task):
    """A causal stack that predicts the next token.

    Args:
        data: a data module of blocks of text.
        architecture: builds the stack.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
        tied_embeddings: whether the output layer is the token table (Press & Wolf 2017).
        label_smoothing: share of the target given to all tokens, in training alone.
    """

    takes: ClassVar[type[Batch]] = LanguageModelingBatch
    needs_causal: ClassVar[bool] = True

    def __init__(
        self,
        data: DataModule,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: float,
    ) -> None:
        super().__init__(data, optimizer, schedule)
        model = architecture(lambda d_model: Embedding(data.vocabulary, d_model), data.length)
        assert isinstance(model, Stack)
        self.model: Stack = model
        self.head = None if tied_embeddings else Linear(self.model.size.d_model, data.vocabulary, bias=False)
        self.label_smoothing = label_smoothing

    def build_metrics(self, data: DataModule, prefix: str) -> MetricCollection:
        """Accuracy of the most likely next token."""
        return MetricCollection({"accuracy": MulticlassAccuracy(data.vocabulary, average="micro")}, prefix=prefix)

    def forward(self, tokens: Int[Tensor, "batch length"], **decoding: Any) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the next token at every position; `decoding` goes to `Stack.forward`."""
        hidden = self.model(tokens, **decoding)
        if self.head is None:
            return linear(hidden, cast(Embedding, self.model.embedding).weight)
        logits: Tensor = self.head(hidden)
        return logits

    def step(self, batch: LanguageModelingBatch) -> Outcome:
        """Cross-entropy in nats per token."""
        logits = self(batch.tokens).flatten(0, 1)
        labels = batch.labels.flatten()
        smoothing = self.label_smoothing if self.training else 0.0
        return Outcome(cross_entropy(logits, labels, label_smoothing=smoothing), logits, labels)

    def epilogue(self, data: DataModule) -> str:
        """The model's continuation of the held-out text's first tokens, always from the same seed."""
        assert isinstance(data, Text)
        prompt = next(iter(data.val_dataloader())).tokens[0, :PROMPT_TOKENS].to(self.device)
        self.eval()
        tokens = sample(self.model, self, prompt, SAMPLE_TOKENS, temperature=0.8, seed=0)
        return data.tokenizer.decode(tokens.tolist())

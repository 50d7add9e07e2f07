"""Autoregressive language modelling."""

from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import MetricCollection

from xformer.architecture.stack import Stack
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, Batch, LanguageModelingBatch
from xformer.data.facts import Facts
from xformer.decoding.sampling import sample
from xformer.tasks.base import Outcome
from xformer.tasks.metrics import TokenAccuracy
from xformer.tasks.token_prediction import TokenPrediction

PROMPT_TOKENS, SAMPLE_TOKENS = 16, 300


class LanguageModeling(TokenPrediction):
    """A causal stack that predicts the next token."""

    takes: ClassVar[type[Batch]] = LanguageModelingBatch
    needs_causal: ClassVar[bool] = True

    model: Stack

    def build_metrics(self, facts: Facts, prefix: str) -> MetricCollection:
        """Accuracy of the most likely next token."""
        return MetricCollection({"accuracy": TokenAccuracy()}, prefix=prefix)

    def forward(self, tokens: Int[Tensor, "batch length"], **decoding: Any) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the next token at every position; `decoding` goes to `Stack.forward`."""
        return self.logits(self.model(tokens, **decoding))

    def step(self, batch: LanguageModelingBatch) -> Outcome:
        """Cross-entropy in nats per token."""
        logits = self(batch.tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    def epilogue(self, data: DataModule) -> str | None:
        """The model's continuation of the held-out text's first tokens, always from the same seed.

        None where the data ask for some tokens alone: nothing says what the others should be.
        """
        batch: LanguageModelingBatch = next(iter(data.val_dataloader()))
        if (batch.labels == IGNORED).any():
            return None
        prompt = batch.tokens[0, :PROMPT_TOKENS].to(self.device)
        self.eval()
        return data.decode(sample(self.model, self, prompt, SAMPLE_TOKENS, temperature=0.8, seed=0).tolist())

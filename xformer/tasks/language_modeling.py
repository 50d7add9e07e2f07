"""Autoregressive language modelling."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from xformer.architecture.stack import Stack
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, Batch, LanguageModelingBatch
from xformer.data.spec import DataSpec
from xformer.errors import DataError
from xformer.generation.causal_prefixes import CausalPrefixes
from xformer.generation.generate import generate_tokens
from xformer.generation.logits_processors import Temperature
from xformer.generation.prefixes import pad_left
from xformer.generation.sampling import Sampling
from xformer.tasks.base import Outcome
from xformer.tasks.generative import Generative
from xformer.tasks.metrics import BitsPerByte, Perplexity, TokenAccuracy
from xformer.tasks.token_prediction import TokenPrediction

PROMPT_TOKENS, SAMPLE_TOKENS, TEMPERATURE = 16, 300, 0.8


class LanguageModeling(TokenPrediction, Generative):
    """Language modelling by a causal stack that predicts the next token."""

    batch_type: ClassVar[type[Batch]] = LanguageModelingBatch
    needs_causal: ClassVar[bool] = True
    continues: ClassVar[bool] = True

    model: Stack

    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
        """Accuracy of the most likely next token; in evaluation, perplexity and, of text, bits per byte."""
        metrics: dict[str, Metric | MetricCollection] = {"accuracy": TokenAccuracy()}
        groups, split = [["accuracy"]], prefix.rstrip("/")
        if split != "train":  # where a batch is logged, and processes would average their perplexities
            metrics["perplexity"] = Perplexity()
            groups.append(["perplexity"])
            if spec.tokens_per_byte is not None and split in spec.tokens_per_byte:
                metrics["bits_per_byte"] = BitsPerByte(spec.tokens_per_byte[split])
                groups[1].append("bits_per_byte")
        return MetricCollection(metrics, prefix=prefix, compute_groups=groups)

    def forward(self, tokens: Int[Tensor, "batch length"], **decoding: Any) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the next token at every position; `decoding` goes to `Stack.forward`."""
        return self.logits(self.model(tokens, **decoding))

    def step(self, batch: LanguageModelingBatch) -> Outcome:
        """Compute the cross-entropy in nats per token."""
        logits = self(batch.tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    @property
    def longest_prompt(self) -> int | None:
        """The longest prompt: the model's length, or None if it extrapolates."""
        return None if self.model.extrapolates else self.model.max_length

    def prefixes(self, prompts: Sequence[Int[Tensor, "..."]], spec: DataSpec, max_new: int) -> CausalPrefixes:
        """The prefixes of prompts; an empty prompt begins after an end-of-text token, as documents do.

        Raises:
            DataError: a prompt is empty and documents have no end token, or is longer than the model reads.
        """
        if spec.end is None and not all(map(len, prompts)):
            raise DataError(
                "A prompt is empty, and this tokenizer has no end-of-text token to begin from; "
                "use at least one character."
            )
        rows = [row if len(row) else row.new_tensor([spec.end]) for row in prompts]
        return CausalPrefixes(self.model, self.logits, *pad_left(rows), max_new)

    def epilogue(self, data: DataModule) -> str | None:
        """The model's continuation of the held-out text's first tokens, always from the same seed.

        None if the data has labels only at some positions, because the other tokens have no reference.
        """
        batch: LanguageModelingBatch = next(iter(data.val_dataloader()))
        if (batch.labels[0] == IGNORED).any():
            return None
        prompt = batch.tokens[0, :PROMPT_TOKENS].to(self.device)
        self.eval()
        prefixes = self.prefixes([prompt], data.spec, SAMPLE_TOKENS)
        generate_tokens(
            prefixes, Sampling([0], SAMPLE_TOKENS, self.device), end=None, logits_processors=[Temperature(TEMPERATURE)]
        )
        return data.decode(prefixes.tokens[0].tolist())

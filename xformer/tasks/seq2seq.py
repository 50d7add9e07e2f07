"""Writing one sequence while reading another."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.data.base import DataModule
from xformer.data.batch import Batch, Seq2SeqBatch
from xformer.data.facts import Facts
from xformer.decoding.greedy import greedy
from xformer.decoding.prefixes import pad_right
from xformer.decoding.transducing import Transducing
from xformer.tasks.base import Outcome
from xformer.tasks.generative import Generative
from xformer.tasks.metrics import SequenceAccuracy, TokenAccuracy
from xformer.tasks.token_prediction import TokenPrediction

EXAMPLES = 3


class Seq2Seq(TokenPrediction, Generative):
    """An encoder-decoder that predicts the target's next token from the source and the target's tokens so far."""

    takes: ClassVar[type[Batch]] = Seq2SeqBatch
    transduces: ClassVar[bool] = True
    continues: ClassVar[bool] = False

    model: EncoderDecoder

    def build_metrics(self, facts: Facts, prefix: str) -> MetricCollection:
        """Accuracy by token and by whole sequence."""
        metrics: dict[str, Metric | MetricCollection] = {
            "token_accuracy": TokenAccuracy(),
            "sequence_accuracy": SequenceAccuracy(),
        }
        return MetricCollection(metrics, prefix=prefix, compute_groups=False)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        padding_mask: Bool[Tensor, "batch source"] | None,
        target: Int[Tensor, "batch target"],
    ) -> Float[Tensor, "batch target vocabulary"]:
        """The logits of the next token at every position of the target."""
        return self.logits(self.model(source, padding_mask, target))

    def step(self, batch: Seq2SeqBatch) -> Outcome:
        """Cross-entropy in nats per real token of the target."""
        logits = self(batch.source_tokens, batch.source_padding_mask, batch.target_tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    @property
    def longest_prompt(self) -> int | None:
        """The longest source, unless the model extrapolates."""
        return None if self.model.extrapolates else self.model.max_length

    def prefixes(self, prompts: Sequence[Int[Tensor, "..."]], facts: Facts, max_new: int) -> Transducing:
        """Sources to write targets for.

        Raises:
            DataError: a source is longer than the model reads.
        """
        assert facts.begin is not None
        source, mask = pad_right(prompts)
        return Transducing(self.model, self.logits, source, mask, begin=facts.begin, max_new=max_new)

    def epilogue(self, data: DataModule) -> str:
        """What the model writes for the first held-out sources, next to what it should."""
        batch: Seq2SeqBatch = next(iter(data.val_dataloader()))
        source = batch.source_tokens[:EXAMPLES].to(self.device)
        mask = batch.source_padding_mask
        mask = None if mask is None else mask[:EXAMPLES].to(self.device)
        self.eval()
        facts = data.facts
        assert facts.begin is not None
        assert facts.end is not None
        written = greedy(self.model, self.logits, source, mask, begin=facts.begin, end=facts.end, max_new=facts.length)
        rows = zip(source, batch.target_tokens, written, strict=False)
        return "\n\n".join(
            "\n".join(
                f"{name:<8}{data.decode(tokens.tolist())}"
                for name, tokens in zip(("source", "target", "written"), row, strict=True)
            )
            for row in rows
        )

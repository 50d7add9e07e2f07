"""Sequence-to-sequence learning: generating a target from a source."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.data.base import DataModule
from xformer.data.batch import Batch, Seq2SeqBatch
from xformer.data.spec import DataSpec
from xformer.generation.greedy import greedy_decode
from xformer.generation.prefixes import pad_right
from xformer.generation.seq2seq_prefixes import Seq2SeqPrefixes
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome
from xformer.tasks.generative import Generative
from xformer.tasks.metrics import SequenceAccuracy, TokenAccuracy
from xformer.tasks.text_metrics import BLEU, ChrF
from xformer.tasks.token_prediction import TokenPrediction

EXAMPLES = 3


class Seq2Seq(TokenPrediction, Generative):
    """An encoder-decoder that predicts the target's next token from the source and the target's tokens so far.

    If the data has the targets as text (`Seq2SeqBatch.references`), generated targets are decoded and scored.
    Arguments not listed are those of `TokenPrediction`.

    Args:
        tied_embeddings: whether source, target and output share one table.
        decode_batches: how many batches are decoded and scored at a validation, because decoding is slow; null for all.
            The test split is decoded whole.
    """

    batch_type: ClassVar[type[Batch]] = Seq2SeqBatch
    transduces: ClassVar[bool] = True
    continues: ClassVar[bool] = False

    model: EncoderDecoder

    def __init__(
        self,
        spec: DataSpec,
        architecture: ArchitectureFactory,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        *,
        tied_embeddings: bool,
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
        decode_batches: Annotated[int, Ge(0)] | None,
    ) -> None:
        super().__init__(
            spec, architecture, optimizer, schedule, tied_embeddings=tied_embeddings, label_smoothing=label_smoothing
        )
        self.decode_batches = decode_batches
        self.val_text, self.test_text = (
            MetricCollection({"bleu": BLEU(), "chrf": ChrF()}, prefix=f"{stage}/", compute_groups=False)
            for stage in ("val", "test")
        )

    def _measure(self, spec: DataSpec) -> None:
        super()._measure(spec)
        self.spec = spec  # the current data's, because longer sources need longer outputs

    def build_metrics(self, spec: DataSpec, prefix: str) -> MetricCollection:
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
        """Compute the cross-entropy in nats per target token, without padding."""
        logits = self(batch.source_tokens, batch.source_padding_mask, batch.target_tokens)
        return Outcome(self.loss(logits, batch.labels), logits, batch.labels)

    @property
    def longest_prompt(self) -> int | None:
        """The longest source; None if the model extrapolates."""
        return None if self.model.extrapolates else self.model.max_length

    def prefixes(self, prompts: Sequence[Int[Tensor, "..."]], spec: DataSpec, max_new: int) -> Seq2SeqPrefixes:
        """The prefixes of sources, from which targets are decoded.

        Raises:
            DataError: a source is longer than the model reads.
        """
        assert spec.begin is not None
        source, mask = pad_right(prompts)
        return Seq2SeqPrefixes(self.model, self.logits, source, mask, begin=spec.begin, max_new=max_new)

    def write(
        self, source: Int[Tensor, "batch source"], padding_mask: Bool[Tensor, "batch source"] | None
    ) -> Int[Tensor, "batch new"]:
        """Decode targets greedily for scoring, up to the longest sequence of the data."""
        spec = self.spec
        assert spec.begin is not None
        assert spec.end is not None
        return greedy_decode(
            self.model, self.logits, source, padding_mask, begin=spec.begin, end=spec.end, max_new=spec.length
        )

    def validation_step(self, batch: Any, index: int) -> None:
        """One validation batch."""
        super().validation_step(batch, index)
        if self.decode_batches is None or index < self.decode_batches:
            self._score(batch, self.val_text)

    def test_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
        """One test batch."""
        super().test_step(batch, index, dataloader_idx)
        self._score(batch, self.test_text)

    def _score(self, batch: Seq2SeqBatch, metrics: MetricCollection) -> None:
        if batch.references is None:
            return
        decode = self.trainer.datamodule.decode  # type: ignore[attr-defined]
        written = [decode(row) for row in self.write(batch.source_tokens, batch.source_padding_mask).tolist()]
        metrics.update(written, batch.references)
        self.log_dict(metrics, batch_size=len(written))

    def epilogue(self, data: DataModule) -> str:
        """The model's output for the first held-out sources, next to the references."""
        batch: Seq2SeqBatch = next(iter(data.val_dataloader()))
        source = batch.source_tokens[:EXAMPLES].to(self.device)
        mask = batch.source_padding_mask
        mask = None if mask is None else mask[:EXAMPLES].to(self.device)
        self.eval()
        spec = data.spec
        assert spec.begin is not None
        assert spec.end is not None
        written = greedy_decode(
            self.model, self.logits, source, mask, begin=spec.begin, end=spec.end, max_new=spec.length
        )
        rows = zip(source, batch.target_tokens, written, strict=False)
        return "\n\n".join(
            "\n".join(
                f"{name:<8}{data.decode(tokens.tolist())}"
                for name, tokens in zip(("source", "target", "written"), row, strict=True)
            )
            for row in rows
        )

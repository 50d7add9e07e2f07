"""Writing one sequence while reading another."""

from typing import ClassVar, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torchmetrics import Metric, MetricCollection

from xformer.architecture.base import ArchitectureFactory
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.data.base import DataModule
from xformer.data.batch import IGNORED, Batch, Seq2SeqBatch
from xformer.data.pairs import Pairs
from xformer.decoding.greedy import greedy
from xformer.layers.embedding import Embedding
from xformer.layers.linear import Linear
from xformer.optimization.optimizer import OptimizerFactory
from xformer.optimization.schedule import Schedule
from xformer.tasks.base import Outcome, Task
from xformer.tasks.metrics import SequenceAccuracy, TokenAccuracy

EXAMPLES = 3


class Seq2Seq(Task):
    """An encoder-decoder that predicts the target's next token from the source and the tokens before (teacher forcing).

    Args:
        data: a data module of pairs.
        architecture: builds the encoder-decoder.
        optimizer: builds the optimiser.
        schedule: the learning rate's factor at a step.
        tied_embeddings: whether the output layer is the token table (Press & Wolf 2017).
        label_smoothing: share of the target given to all tokens, in training alone.
    """

    takes: ClassVar[type[Batch]] = Seq2SeqBatch
    transduces: ClassVar[bool] = True

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
        assert isinstance(model, EncoderDecoder)
        self.model: EncoderDecoder = model
        self.head = None if tied_embeddings else Linear(model.size.d_model, data.vocabulary, bias=False)
        self.label_smoothing = label_smoothing

    def build_metrics(self, data: DataModule, prefix: str) -> MetricCollection:
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

    def logits(self, hidden: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of hidden states."""
        if self.head is None:
            return linear(hidden, cast(Embedding, self.model.embedding).weight)
        logits: Tensor = self.head(hidden)
        return logits

    def step(self, batch: Seq2SeqBatch) -> Outcome:
        """Cross-entropy in nats per real token of the target."""
        logits = self(batch.source_tokens, batch.source_padding_mask, batch.target_tokens)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
        )
        return Outcome(loss, logits, batch.labels)

    def epilogue(self, data: DataModule) -> str:
        """What the model writes for the first held-out sources, next to what it should."""
        assert isinstance(data, Pairs)
        batch: Seq2SeqBatch = next(iter(data.val_dataloader()))
        source = batch.source_tokens[:EXAMPLES].to(self.device)
        mask = batch.source_padding_mask
        mask = None if mask is None else mask[:EXAMPLES].to(self.device)
        self.eval()
        written = greedy(self.model, self.logits, source, mask, begin=data.begin, end=data.end, max_new=data.length)
        rows = zip(source, batch.target_tokens, written, strict=False)
        return "\n\n".join(
            "\n".join(
                f"{name:<8}{data.readable(tokens.tolist())}"
                for name, tokens in zip(("source", "target", "written"), row, strict=True)
            )
            for row in rows
        )

"""Pairs of documents with a label each, such as whether one paper cites the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from xformer.data.batch import PairClassificationBatch
from xformer.data.configs import DataContext, LoaderConfig, RandomSplitConfig
from xformer.data.datasets.text_classification import LabelledText, LabelledTexts
from xformer.data.labelled import LabelledSequences
from xformer.data.sources.tables import TableSource
from xformer.data.split import Split
from xformer.errors import DataError
from xformer.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LabelledPairSource(TableSource):
    """Pair classification data from tables with two text columns and a label.

    Attributes:
        first_column: the one with the first text.
        second_column: the one with the second text.
        label_column: the one with the label, a whole number or text.
    """

    first_column: str
    second_column: str
    label_column: str


class PairedTexts(Split):
    """Pairs of texts; the two of a pair are stored one after the other."""

    def __init__(self, texts: LabelledSequences) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts) // 2

    def __getitems__(self, indices: Sequence[int]) -> PairClassificationBatch:
        first, second = (self.texts.__getitems__([2 * index + side for index in indices]) for side in (0, 1))
        return PairClassificationBatch(
            first.tokens, first.padding_mask, second.tokens, second.padding_mask, first.labels
        )


class DocumentPairs(LabelledTexts):
    """Pair classification data from tables with two text columns and a label.

    Classes, tokenizer and splits are as those of `TextClassification`. Both sides of a batch are padded, each up to its
    longest text.

    Args:
        context: seed of the order of the training batches, and where the tokens are kept.
        source: where the tables come from.
        tokenizer: trained here, unless the cache has it trained.
        max_length: most tokens of each text; what is longer loses its end.
        split: which rows are held out where the source has no such split.
        loader: size of the batches, and who fetches them.

    Raises:
        DataError: in `prepare_data`, no source is given, the tables cannot be read, a text or label is missing, or a
            split is empty.
    """

    yields: ClassVar[type] = PairClassificationBatch
    offline: ClassVar[str] = "data.source.files of your own"

    def __init__(
        self,
        context: DataContext,
        *,
        source: LabelledPairSource,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Ge(1)],
        split: RandomSplitConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, source, tokenizer, max_length, split, loader)

    def _read(self) -> dict[str, list[LabelledText]]:
        if self.source.place is None:
            raise DataError(
                "data.source.files=null: this project ships no pairs of documents; set the files, for the Long Range "
                "Arena's retrieval those of its release, data.source.files={train: .../new_aan_pairs.train.tsv, "
                "val: .../new_aan_pairs.eval.tsv, test: .../new_aan_pairs.test.tsv}."
            )
        return super()._read()

    def load(self) -> None:
        """Map the tokens into memory."""
        super().load()
        assert self.spec.class_counts is not None
        self.splits = {name: PairedTexts(part) for name, part in self.parts.items()}
        self.spec = replace(self.spec, class_counts=[count // 2 for count in self.spec.class_counts])

    def describe(self) -> str:
        """Source, sizes of the splits, and lengths."""
        sizes = "/".join(f"{len(part):,}" for part in self.splits.values())
        longest = max(part.lengths.max() for part in self.parts.values())
        return (
            f"DocumentPairs ({self.source.place}): {sizes} pairs of {self.spec.classes} classes, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocabulary:,}, up to {longest} tokens each"
            f"{self.unread}"
        )

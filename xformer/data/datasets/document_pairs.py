"""Pairs of documents with a label each, such as whether one paper cites the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from xformer.data.batch import PairClassificationBatch
from xformer.data.datasets.text_classification import LabelledText, LabelledTexts
from xformer.data.sources.tables import TableSource
from xformer.data.splits import LabelledSequences, Split
from xformer.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LabelledPairSource(TableSource):
    """Pair classification data from tables with two text columns and a label."""

    first_column: str  # the one with the first text
    second_column: str  # the one with the second text
    label_column: str  # the one with the label, a whole number or text


class PairedTexts(Split):
    """Pairs of texts; the two of a pair are stored one after the other."""

    def __init__(self, texts: LabelledSequences) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts) // 2

    def __getitems__(self, indices: Sequence[int]) -> PairClassificationBatch:
        first, second = (self.texts.__getitems__([2 * index + side for index in indices]) for side in (0, 1))
        return PairClassificationBatch(*first[:2], *second[:2], first.labels)


@dataclass(kw_only=True, eq=False, repr=False)
class DocumentPairs(LabelledTexts):
    """Pair classification data from tables with two text columns and a label; each side of a batch is padded."""

    yields: ClassVar[type] = PairClassificationBatch
    offline: ClassVar[str] = "data.source.files of your own"

    source: LabelledPairSource

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
        longest = max(part.lengths.max() for part in self.parts.values())
        return (
            f"DocumentPairs ({self.source.place}): {self.split_sizes()} pairs of {self.spec.classes} classes, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocabulary:,}, up to {longest} tokens each{self.unread}"
        )

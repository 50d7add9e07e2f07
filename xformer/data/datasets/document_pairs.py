"""Pairs of texts with a label each, such as whether one paper cites the other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval

from xformer.data.batch import PairClassificationBatch
from xformer.data.datasets.text_classification import LabelledText, TextClassification
from xformer.data.labelled import LabelledSequences
from xformer.data.sources.tables import Files
from xformer.errors import DataError
from xformer.tokenizers.base import Tokenizer


class PairedTexts:
    """Pairs of texts, of which the two of a pair lie one after the other."""

    def __init__(self, texts: LabelledSequences) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts) // 2

    def __getitems__(self, indices: Sequence[int]) -> PairClassificationBatch:
        first, second = (self.texts.__getitems__([2 * index + side for index in indices]) for side in (0, 1))
        return PairClassificationBatch(
            first.tokens, first.padding_mask, second.tokens, second.padding_mask, first.labels
        )


class DocumentPairs(TextClassification):
    """Tables of two texts and a label.

    Classes, tokenizer and splits are as those of `TextClassification`. Both sides of a batch are padded, each up to its
    longest text.

    Args:
        seed: order of the training batches.
        cache: where the tokens are kept.
        files: a directory with a file for each split, a path or a pattern, several of these, or one for each split;
            csv, tsv, json or parquet.
        dataset: a local dataset directory, or a name on the hub.
        dataset_config: of the dataset, where it has several.
        column_names: all columns of a csv or tsv file whose first line does not name them.
        first_column: the one with the first text.
        second_column: the one with the second text.
        label_column: the one with the label, a whole number or text.
        tokenizer: trained here, unless the cache has it trained.
        max_length: most tokens of each text; what is longer loses its end.
        validation_fraction: share of the training rows to validate on, if the source has no validation split.
        test_fraction: share of the training rows to test on, if the source has no test split; 0 for no test.
        split_seed: decides which rows are held out.
        batch_size: pairs per step over all devices.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: both `files` and `dataset` are given, or a number is out of range.
        DataError: in `prepare_data`, neither is given, the tables cannot be read, a text or label is missing, or a
            split is empty.
    """

    yields: ClassVar[type] = PairClassificationBatch
    offline: ClassVar[str] = "data.files of your own"

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        files: Files | None,
        dataset: str | None,
        dataset_config: str | None,
        column_names: list[str] | None,
        first_column: str,
        second_column: str,
        label_column: str,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Ge(1)],
        validation_fraction: Annotated[float, Interval(ge=0, lt=1)],
        test_fraction: Annotated[float, Interval(ge=0, lt=1)],
        split_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(
            seed,
            cache,
            files=files,
            dataset=dataset,
            dataset_config=dataset_config,
            column_names=column_names,
            text_column=first_column,
            label_column=label_column,
            tokenizer=tokenizer,
            max_length=max_length,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            balanced=False,
            batch_size=batch_size,
            tokens_per_batch=None,
            num_workers=num_workers,
        )
        self.columns = {"first_column": first_column, "second_column": second_column, "label_column": label_column}

    def _read(self) -> dict[str, list[LabelledText]]:
        if self.files is None and self.dataset is None:
            raise DataError(
                "data.files=null: no pairs of documents come with this project; give files, for the Long Range Arena's "
                "retrieval those of its release, data.files={train: .../new_aan_pairs.train.tsv, "
                "val: .../new_aan_pairs.eval.tsv, test: .../new_aan_pairs.test.tsv}."
            )
        return super()._read()

    def load(self) -> None:
        """Map the tokens into memory."""
        super().load()
        assert self.facts.class_counts is not None
        self.splits = {name: PairedTexts(part) for name, part in self.parts.items()}
        self.facts = replace(self.facts, class_counts=[count // 2 for count in self.facts.class_counts])

    def describe(self) -> str:
        """Source, sizes of the splits, and lengths."""
        sizes = "/".join(f"{len(part):,}" for part in self.splits.values())
        longest = max(part.lengths.max() for part in self.parts.values())
        return (
            f"DocumentPairs ({self.files or self.dataset}): {sizes} pairs of {self.facts.classes} classes, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocabulary:,}, up to {longest} tokens each"
            f"{self.unread}"
        )

"""Pairs of sequences: what a task that reads one and writes the other knows of its data."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from xformer.data.base import DataModule
from xformer.data.batch import Seq2SeqBatch


class Pairs(DataModule):
    """Data of `Seq2SeqBatch`es; source and target share a vocabulary, and `length` bounds both."""

    yields: ClassVar[type] = Seq2SeqBatch

    padding: int
    begin: int
    end: int

    @abstractmethod
    def readable(self, tokens: Sequence[int]) -> str:
        """A sequence as a person reads it, up to its end token, without the tokens that are not text."""

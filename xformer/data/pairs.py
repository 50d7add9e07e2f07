"""Pairs of sequences: what a task that reads one and writes the other knows of its data."""

from typing import ClassVar

from xformer.data.base import DataModule
from xformer.data.batch import Seq2SeqBatch


class Pairs(DataModule):
    """Data of `Seq2SeqBatch`es; source and target share a vocabulary, and `facts.length` bounds both."""

    yields: ClassVar[type] = Seq2SeqBatch

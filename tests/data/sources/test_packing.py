"""Packed text against its documents, and windows against the positions that they must cover."""

import json

import numpy as np
import pytest

from xformer.data.arrays import Flat
from xformer.data.batch import IGNORED
from xformer.data.sources import packing
from xformer.data.sources.documents import in_memory
from xformer.data.sources.packing import PackedBlocks, PackedWindows, pack, tokens_per_byte, unpack, words
from xformer.tokenizers.byte import Byte
from xformer.tokenizers.character import Character


def test_training_windows_reach_the_last_token_and_no_further(tmp_path):
    np.arange(20, dtype=np.uint16).tofile(tmp_path / "t.bin")
    blocks = PackedBlocks(Flat(tmp_path / "t.bin", "uint16"), 6)
    batch = blocks.__getitems__([0, len(blocks) - 1])
    assert batch.tokens.tolist() == [[0, 1, 2, 3, 4, 5], [13, 14, 15, 16, 17, 18]]
    assert batch.labels[1, -1] == 19


@pytest.mark.parametrize("size", range(5, 20))
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_token_but_the_first_is_evaluated_once_with_its_context(tmp_path, size, stride):
    np.arange(size, dtype=np.uint16).tofile(tmp_path / "t.bin")
    windows = PackedWindows(Flat(tmp_path / "t.bin", "uint16"), 4, stride)
    batch = windows.__getitems__(range(len(windows)))
    counted = batch.labels != IGNORED
    assert batch.labels[counted].tolist() == list(range(1, size))
    assert (batch.labels[counted] == batch.tokens[counted] + 1).all()
    assert counted[0].all()
    assert (counted.sum(1)[1:-1] == stride).all()
    assert counted.any(1).all()
    assert not counted[1:, : 4 - stride].any()
    alone = windows.__getitems__([len(windows) - 1])
    assert alone.labels.equal(batch.labels[-1:])
    assert alone.tokens.equal(batch.tokens[-1:])


@pytest.mark.parametrize(("vocabulary", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_numbers_are_as_wide_as_the_vocabulary_needs(tmp_path, vocabulary, dtype):
    class Wide(Character):
        stable_name = "Wide"
        vocabulary = property(lambda self: vocabulary)

        def encode(self, text):
            return np.full(len(text), vocabulary - 1, dtype=np.int64)

    packing.pack(tmp_path, {"train": in_memory(["abc"])}, Wide())
    flat = packing.unpack(tmp_path)["train"]
    assert flat.array.dtype == dtype
    assert flat.array.tolist() == [vocabulary - 1] * 3


def test_documents_follow_each_other_each_with_its_end(tmp_path):
    pack(tmp_path, {"train": in_memory(["ab", "é"]), "val": in_memory(["c"])}, Byte())
    flat = unpack(tmp_path)
    assert list(flat) == ["train", "val"]
    assert flat["train"].array.tolist() == [97, 98, 256, 195, 169, 256]
    assert flat["val"].array.tolist() == [99, 256]
    sidecar = json.loads((tmp_path / packing.SIDECAR).read_text())
    assert sidecar == {"dtype": "uint16", "vocabulary": 257, "splits": {"train": 3, "val": 0}}


def test_the_tokenizer_learns_from_train_alone_and_is_kept(tmp_path):
    tokenizer = Character()
    pack(tmp_path, {"train": in_memory(["ba"]), "val": in_memory(["xay"])}, tokenizer)
    assert unpack(tmp_path)["val"].array.tolist() == [2, 0, 2]
    kept = Character()
    kept.load(tmp_path)
    assert kept.fingerprint == tokenizer.fingerprint


def test_tokens_per_byte_leaves_out_the_first_token_and_its_bytes(tmp_path):
    pack(tmp_path, {"train": in_memory(["aé"]), "val": in_memory(["éa", "aé"]), "test": in_memory(["a"])}, Character())
    assert tokens_per_byte(tmp_path) == {"train": 1 / 2, "val": 3 / 4, "test": 0.0}


def test_words_are_the_texts_and_can_be_read_again():
    texts = words(in_memory(["ab", "c"]))
    assert list(texts) == list(texts) == ["ab", "c"]

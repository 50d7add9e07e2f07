"""Pairs of documents: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from xformer.data.batch import PairClassificationBatch
from xformer.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def rows(count: int) -> list[tuple[str, str, str, str, str]]:
    return [(str(n % 3 == 0), f"P{n}", f"Q{n}", f"first {n}", f"the second one {n}") for n in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows(60)))
    return str(path)


def test_pairs_are_read_whole_and_keep_together(ready, file: str) -> None:
    module = ready("retrieval_lra", files=file, tokenizer="byte")
    found = []
    for split, size in (("train", 48), ("val", 6), ("test", 6)):
        items = module.splits[split]
        assert len(items) == size
        batch = items.__getitems__(range(size))
        assert isinstance(batch, PairClassificationBatch)
        sides = [(batch.first_tokens, batch.first_padding_mask), (batch.second_tokens, batch.second_padding_mask)]
        texts = [[module.decode(row[mask].tolist()) for row, mask in zip(*side, strict=True)] for side in sides]
        found += list(zip((module.spec.class_names[label] for label in batch.labels), *texts, strict=True))
        assert [module.decode(row.tolist()) for row in batch.second_tokens] == texts[1]  # without padding
    assert sorted(found) == sorted((label, first, second) for label, _, _, first, second in rows(60))
    labels = [label for label, _, _ in found[:48]]
    assert module.spec.class_counts == [labels.count("False"), labels.count("True")]
    assert module.trivial_baselines["majority class"] == pytest.approx(
        np.mean([label == "False" for label, *_ in found[54:]])
    )
    assert "48/6/6 pairs" in module.describe()


def test_each_document_is_cut_on_its_own(ready, file: str) -> None:
    module = ready("retrieval_lra", files=file, tokenizer="byte", max_length=10)
    batch = module.splits["train"].__getitems__([0, 5, 7])
    assert batch.first_tokens.shape[1] == 8
    assert batch.second_tokens.shape[1] == 10 == module.spec.length


def test_what_is_missing_is_named(build, file: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.source\.files=null: this project ships no pairs .*new_aan_pairs\.train\.tsv"
    ):
        build("retrieval_lra", tokenizer="byte").prepare_data()
    with pytest.raises(DataError, match="other"):
        build("retrieval_lra", files=file, second_column="other", tokenizer="byte").prepare_data()
    path = tmp_path / "holes.tsv"
    path.write_text("1\ta\tb\tsome text\t \n0\ta\tb\tsome text\tmore\n")
    with pytest.raises(DataError, match=r"data\.source\.second_column=second has no text in row 1 of train"):
        build("retrieval_lra", files=str(path), tokenizer="byte").prepare_data()

"""Pairs from files, tables and datasets: each with its translation, and read again from the beginning."""

from dataclasses import replace

import pytest

from xformer.data.sources.corpus import (
    Pair,
    ParallelSource,
    aligned_lines,
    corpus_texts,
    of_files,
    of_rows,
    part,
    survey,
)
from xformer.data.sources.tables import read_tables
from xformer.errors import ConfigError, DataError

PAIRS = [Pair("one", "eins"), Pair("", "zwei"), Pair("three", "drei")]
ROWS = [tuple(pair) for pair in PAIRS]


def test_lines_end_with_line_feeds_alone(ready, tmp_path):
    (tmp_path / "a").write_bytes("\ufeffone\u2028two\r\nthree\x0cfour\x85\r\nlast".encode())
    (tmp_path / "b").write_bytes(b"1\n2\n3\n")
    pairs = list(of_files(str(tmp_path / "a"), str(tmp_path / "b")))
    assert pairs == [("one\u2028two", "1"), ("three\x0cfour\x85", "2"), ("last", "3")]


def test_ragged_files_are_refused_with_both_counts(tmp_path):
    for first, second in ((5, 3), (3, 5)):
        (tmp_path / "a").write_text("x\n" * first)
        (tmp_path / "b").write_text("y\n" * second)
        with pytest.raises(DataError) as error:
            list(of_files(str(tmp_path / "a"), str(tmp_path / "b")))
        words = f"data.source.source_files={tmp_path}/a has {first} lines and data.source.target_files={tmp_path}/b "
        words += f"{second}: each"
        assert str(error.value).startswith(words)


def test_a_line_that_is_not_utf_8_is_named_after_those_before_it(tmp_path):
    (tmp_path / "a").write_bytes("x\ny\nü\n".encode("latin-1"))
    (tmp_path / "b").write_text("1\n2\n3\n")
    pairs = iter(of_files(str(tmp_path / "a"), str(tmp_path / "b")))
    assert [next(pairs), next(pairs)] == [("x", "1"), ("y", "2")]
    with pytest.raises(DataError, match=r"data\.source\.source_files=.*a is not UTF-8 in line 3: convert the file"):
        next(pairs)


def test_splits_are_those_of_both_sides(tmp_path):
    for name, text in (("a", "one\n"), ("b", "eins\n"), ("c", "two\n"), ("d", "zwei\n")):
        (tmp_path / name).write_text(text)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    assert {split: list(pairs) for split, pairs in aligned_lines(a, b).items()} == {"train": [("one", "eins")]}
    found = aligned_lines({"test": c, "train": a}, {"train": b, "test": d})
    assert {split: list(pairs) for split, pairs in found.items()} == {
        "train": [("one", "eins")],
        "test": [("two", "zwei")],
    }


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (
            {"train": "a", "test": "b"},
            "c",
            "data.source.source_files has train, test and data.source.target_files train:",
        ),
        ({"test": "a"}, {"test": "b"}, "data.source.source_files has test and data.source.target_files test:"),
        ({"train": "a", "dev": "b"}, {"train": "a", "dev": "b"}, "data.source.source_files has train, dev and"),
    ],
)
def test_other_splits_are_refused(source, target, told):
    with pytest.raises(ConfigError) as error:
        aligned_lines(source, target)
    assert str(error.value).startswith(told)


def test_a_table_gives_its_rows_and_names_one_that_is_no_text():
    table = of_rows("data.source.files=t.csv", ROWS)
    assert list(table) == list(table) == PAIRS
    broken = of_rows("data.source.files=t.csv", [*ROWS[:2], ("three", None)])
    with pytest.raises(
        DataError, match=r"data\.source\.files=t\.csv has no text in row 3 of data\.source\.target_column: correct"
    ):
        list(broken)


def test_a_dataset_gives_its_rows_by_split(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = [{"id": number, "pair": pair._asdict()} for number, pair in enumerate(PAIRS * 700)]
    DatasetDict(train=Dataset.from_list(rows), validation=Dataset.from_list(rows[:1])).save_to_disk(tmp_path / "d")
    columns = {"source_column": "pair.source", "target_column": "pair.target"}
    source = ParallelSource(
        source_files=None, target_files=None, files=None, dataset=str(tmp_path / "d"), dataset_config=None,
        column_names=None, **columns,
    )  # fmt: skip
    found = {split: of_rows("d", rows) for split, rows in read_tables(source).items()}
    assert {split: list(pairs) for split, pairs in found.items()} == {"train": PAIRS * 700, "val": PAIRS[:1]}
    swapped = read_tables(replace(source, **dict(zip(columns, reversed(columns.values()), strict=True))))
    assert list(swapped["val"]) == [("eins", "one")]


def test_a_part_and_the_texts_can_be_read_again():
    corpus = part(PAIRS, [True, False, True])
    assert list(corpus) == list(corpus) == [PAIRS[0], PAIRS[2]]
    assert list(corpus_texts(corpus)) == list(corpus_texts(corpus)) == ["one", "eins", "three", "drei"]


def test_a_survey_counts_the_pairs_and_tells_all_others_apart():
    assert survey([])[0] == 0
    assert survey(PAIRS) == survey(of_rows("t", ROWS)) == (3, survey(PAIRS)[1])
    others = [[("ab", "c")], [("a", "bc")], [("abc", "")], [("ab", ""), ("c", "")], [("c", "ab")], [("\ud800", "")]]
    assert len({survey([Pair(*pair) for pair in pairs])[1] for pairs in others}) == len(others)

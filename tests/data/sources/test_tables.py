from functools import partial
from pathlib import Path
from typing import Any

import pytest

from xformer.data.datasets.text_classification import LabelledTextSource
from xformer.data.sources.corpus import ParallelSource
from xformer.data.sources.tables import read_tables
from xformer.errors import ConfigError, DataError

# Importing these emits deprecations that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

COLUMNS = {"text_column": "text", "label_column": "label"}
ROWS = [('good, "really" good', 1), ("bad\u2028and sad", 0), ("schön", 1)]
TABLE = {"text_column": [text for text, _ in ROWS], "label_column": [label for _, label in ROWS]}
AS_TEXT = {**TABLE, "label_column": [str(label) for _, label in ROWS]}


def frame():
    import pandas

    return pandas.DataFrame([(*row, "unwanted") for row in ROWS], columns=["text", "label", "other"])


def write(path: Path) -> str:
    """The rows as another library writes them."""
    match path.suffix:
        case ".csv":
            frame().to_csv(path, index=False)
        case ".tsv":
            path.write_text("text\tlabel\tother\n" + "".join(f"{text}\t{label}\tx\n" for text, label in ROWS))
        case ".json":
            frame().to_json(path, orient="records")
        case ".jsonl":
            frame().to_json(path, orient="records", lines=True, force_ascii=False)
        case ".parquet":
            frame().to_parquet(path)
    return str(path)


def read(files=None, columns=COLUMNS, column_names=None, dataset=None):
    if "text_column" in columns:
        kind = LabelledTextSource
    else:
        kind = partial(ParallelSource, source_files=None, target_files=None)
    found = read_tables(kind(files=files, dataset=dataset, dataset_config=None, column_names=column_names, **columns))
    assert all(list(rows) == list(rows) for rows in found.values())
    return {split: dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) for split, rows in found.items()}


@pytest.mark.parametrize("extension", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same_columns(tmp_path, extension):
    path = write(tmp_path / f"table.{extension}")
    assert read(path) == {"train": AS_TEXT if extension in {"csv", "tsv"} else TABLE}


def test_a_quoted_line_end_belongs_to_the_value(tmp_path):
    (tmp_path / "t.csv").write_text('text,label\n"one\n""two""",1\n')
    assert read(str(tmp_path / "t.csv")) == {"train": {"text_column": ['one\n"two"'], "label_column": ["1"]}}


def test_a_tsv_has_no_quotes_and_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "t.tsv").write_text('\ufefftext\tlabel\n"open\t1\n', encoding="utf-8")
    assert read(str(tmp_path / "t.tsv")) == {"train": {"text_column": ['"open'], "label_column": ["1"]}}


def test_words_that_other_readers_take_for_nothing_are_text(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nNA,null\n007,true\n")
    assert read(str(tmp_path / "t.csv"))["train"] == {"text_column": ["NA", "007"], "label_column": ["null", "true"]}


def test_columns_of_a_file_without_names_are_named(tmp_path):
    (tmp_path / "t.tsv").write_text("one\t0\ntwo\t1\n")
    found = read(str(tmp_path / "t.tsv"), column_names=["text", "label"])
    assert found == {"train": {"text_column": ["one", "two"], "label_column": ["0", "1"]}}


@pytest.mark.parametrize("first", ["sentence\tlabel", "Text\tstars"])
def test_a_first_line_of_names_is_no_row_where_the_names_are_given(tmp_path, first):
    (tmp_path / "t.tsv").write_text(f"{first}\none\t0\ntwo\t1\n")
    with pytest.raises(
        DataError, match=r"t\.tsv names its columns in its first line .*: set data\.source\.column_names=null"
    ):
        read(str(tmp_path / "t.tsv"), column_names=["text", "label"])


def test_a_directory_gives_the_splits_by_name(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\t0\n")
    (tmp_path / "README.md").write_text("what it is")
    found = read(str(tmp_path))
    assert list(found) == ["train", "val", "test"]
    assert [table["text_column"] for table in found.values()] == [["train"], ["dev"], ["test"]]


def test_files_are_given_by_split_or_one_after_the_other(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},0\n")
    a, b, c = (str(tmp_path / f"{name}.csv") for name in "abc")
    found = read({"val": c, "train": str(tmp_path / "[ab].csv")})
    assert {name: table["text_column"] for name, table in found.items()} == {"train": ["a", "b"], "val": ["c"]}
    assert read([b, a])["train"]["text_column"] == ["b", "a"]


@pytest.mark.parametrize("extension", ["json", "parquet"])
def test_a_field_of_a_nested_column_is_named_with_a_dot(tmp_path, extension):
    import pandas

    rows = pandas.DataFrame({"translation": [{"de": "Haus", "en": "house"}, {"de": "Maus", "en": "mouse"}]})
    path = tmp_path / f"pairs.{extension}"
    rows.to_json(path, orient="records") if extension == "json" else rows.to_parquet(path)
    found = read(str(path), {"source_column": "translation.de", "target_column": "translation.en"})
    assert found == {"train": {"source_column": ["Haus", "Maus"], "target_column": ["house", "mouse"]}}


def test_a_dataset_is_read_by_split_in_its_own_order(tmp_path):
    from datasets import Dataset, DatasetDict

    part = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]})
    DatasetDict(train=part.select([2, 0]), validation=part).save_to_disk(str(tmp_path / "saved"))
    found = read(dataset=str(tmp_path / "saved"))
    assert found["train"] == {"text_column": ["c", "a"], "label_column": [0, 0]}
    assert found["val"] == {"text_column": ["a", "b", "c"], "label_column": [0, 1, 0]}


def test_a_view_of_a_dataset_keeps_its_rows(monkeypatch):
    from datasets import Dataset

    from xformer.data.sources import tables

    part = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 0]}).select([2, 0])
    monkeypatch.setattr(tables, "load_dataset_splits", lambda source, columns, **_: {"train": part})
    assert read(dataset="any")["train"]["text_column"] == ["c", "a"]


def test_a_hub_name_without_a_network_is_one_sentence(monkeypatch):
    import huggingface_hub

    def fail(self, name, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(DataError, match=r"data\.source\.dataset=nobody/none .*the hub cannot be reached") as caught:
        read(dataset="nobody/none")
    assert "\n" not in str(caught.value)


BAD = {
    "empty.csv": (b"", r"is empty: use a file with rows"),
    "blank.jsonl": (b"\n\n", r"is empty: use a file with rows"),
    "header.csv": (b"text,label\n", r"has no rows: use a source with rows"),
    "none.json": (b"[]", r"text_column=text is not in .*none\.json"),
    "column.csv": (
        b"body,label\na,0\n",
        r"data\.source\.text_column=text is not in .*column\.csv: its columns are body, label",
    ),
    "column.jsonl": (
        b'{"text": "a", "stars": 1}',
        r"data\.source\.label_column=label is not in .*: its columns are text, stars",
    ),
    "twice.csv": (b"text,text,label\na,b,0\n", r"data\.source\.text_column=text is twice in .*twice\.csv"),
    "latin.csv": ("text,label\nGröße,0\n".encode("latin-1"), r"is not UTF-8 at byte 13: convert the file"),
    "latin.tsv": ("text\tlabel\nGröße\t0\n".encode("latin-1"), r"is not UTF-8 at byte 13: convert the file"),
    "latin.jsonl": ('{"text": "Größe", "label": 0}'.encode("latin-1"), r"is not UTF-8 at byte 12: convert the file"),
    "book.xls": (b"text,label\n", r"has no known extension: use one of \.csv, \.tsv, \.json, \.jsonl, \.parquet"),
    "more.csv": (b"text,label\na,0\nb,1,2\n", r"is ragged: row 2 has 3 columns, and 2 are expected"),
    "less.tsv": (b"text\tlabel\na\t0\nb\n", r"is ragged: row 2 has 1 columns, and 2 are expected"),
    "less.json": (b'[{"text": "a", "label": 0}, {"text": "b"}]', r"is ragged: row 2 has no label"),
    "list.json": (b'[{"text": "a", "label": 0}, 3]', r"has a row 2 that is not an object"),
    "broken.json": (b'[{"text": "a"', r"cannot be read as json \(.*\): correct the file"),
    "broken.jsonl": (
        b'{"text": "a", "label": 0}\n{"text"',
        r"cannot be read as jsonl \(line 2: .*\): correct the file",
    ),
    "deep.json": (b"[" * 200_000, r"cannot be read as json \(.*recursion.*\): correct the file"),
    "deep.jsonl": (b'{"a": ' * 200_000, r"cannot be read as jsonl \(line 1: .*recursion.*\): correct the file"),
    "half.json": (b'[{"text": "\\ud800", "label": 0}]', r"cannot be read as json \(.*surrogates.*\): correct the file"),
    "large.json": (
        b'[{"text": "a", "label": 1' + b"0" * 30 + b"}]",
        r"cannot be read as json \(.*\): correct the file",
    ),
    "mixed.json": (b'[{"text": "a", "label": 0}, {"text": 3, "label": 0}]', r"cannot be read as json \("),
    "broken.parquet": (b"PAR1 and no more", r"cannot be read as parquet \("),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ("missing.csv", DataError, r"data\.source\.files=missing\.csv does not exist"),
        ("*.csv", DataError, r"data\.source\.files=\*\.csv matches no file"),
        ([], DataError, r"data\.source\.files=\[\] names no file"),
        (".", DataError, r"data\.source\.files=\. has no file train with one of the extensions"),
        ({"train": "missing.csv"}, DataError, r"data\.source\.files=missing\.csv does not exist"),
        ({"training": "a.csv"}, ConfigError, r"data\.source\.files\.training is not a split: use train"),
        ({"val": "a.csv"}, ConfigError, r"has no file for train"),
    ],
)
def test_sources_that_are_not_there_are_named(tmp_path, monkeypatch, files, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        read(files)


def test_two_files_for_a_split_are_refused(tmp_path):
    for extension in ("csv", "tsv"):
        (tmp_path / f"train.{extension}").write_text("text\n")
    with pytest.raises(DataError, match=r"has several files for train \(train\.csv, train\.tsv\): name one of them"):
        read(str(tmp_path))


def test_files_and_dataset_exclude_each_other():
    with pytest.raises(
        ConfigError,
        match=r"data\.source\.files=a and data\.source\.dataset=b cannot be combined: set all but one to null",
    ):
        read("a", dataset="b")


def test_the_case_of_an_extension_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "train.CSV").write_text("text,label\na,0\n")
    for files in (str(tmp_path / "train.CSV"), str(tmp_path)):
        assert read(files)["train"]["text_column"] == ["a"]


@pytest.mark.parametrize(("first", "names"), [("text,label\n", None), ("", ["text", "label"])])
def test_a_row_has_the_same_number_whatever_is_wrong_with_it(
    first: str, names: list[str] | None, tmp_path: Path, build: Any
) -> None:
    """Rows are counted from 1, and a first line that names the columns is none."""
    for name, row in (("ragged", "a,b,c"), ("empty", " ,0"), ("unlabelled", "a, ")):
        (tmp_path / f"{name}.csv").write_text(f"{first}a,0\nb,1\n{row}\nc,0\n")
        with pytest.raises(DataError, match="row 3 "):
            build("text_classification", files=str(tmp_path / f"{name}.csv"), column_names=names).prepare_data()

"""Text that a tokenizer without an unknown token drops: told, not credited, and refused where nothing is left."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.errors import DataError
from xformer.tokenizers.file import File

LATIN = "abcdefghijklmnopqrstuvwxyz ."
STRANGE = "äж€😀\u200b"


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.json` of Latin letters and a few merges, without an unknown token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [letter for letter in LATIN if letter != " "]
    vocabulary = {piece: index for index, piece in enumerate([*letters, "ab", "the"[:2]])}
    model = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("t", "h")]))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    model.save(str(path))
    return path


@settings(deadline=None)
@given(text=st.text(alphabet=LATIN + STRANGE, max_size=40))
def test_what_comes_back_and_what_is_unread_are_the_text(latin: Path, text: str) -> None:
    for tokenizer in (File(path=str(latin)), File(path=str(latin)).freeze()):
        back = tokenizer.decode(tokenizer.encode(text).tolist())
        solid = [len("".join(part.split()).encode()) for part in (back, text)]
        assert solid[0] + tokenizer.unread(text) == solid[1]


def test_a_tokenizer_of_bytes_leaves_nothing_unread(tmp_path: Path) -> None:
    from xformer.tokenizers.bpe import BPE

    own = BPE(vocabulary_size=300)
    own.train(["the cat sat " * 50])
    own.save(tmp_path)
    assert File(path=str(tmp_path / "tokenizer.json")).unread(STRANGE + LATIN) == 0


@pytest.fixture
def read_by(build, latin: Path):
    """A data module whose tokenizer has Latin letters alone."""

    def read_by(name: str, **options):
        module = build(name, **options)
        module.tokenizer = File(path=str(latin))
        module.prepare_data()
        module.setup("fit")
        return module

    return read_by


@pytest.mark.parametrize("begin", ["", "ж", "ж \n"])
def test_dropped_text_is_told_and_earns_no_credit(read_by, tmp_path: Path, begin: str) -> None:
    parts = {"block": 8, "val_fraction": 0.25, "test_fraction": 0.25}
    (tmp_path / "read.txt").write_text("the cab that bat. " * 200)
    (tmp_path / "both.txt").write_text((begin + "the cab ж€ж that 😀ж€ bat. ") * 200, encoding="utf-8")
    read, both = (read_by("text", files=str(tmp_path / f"{name}.txt"), **parts) for name in ("read", "both"))
    spaces = 2 + len(begin) - begin.count("ж")  # which a pre-tokenizer drops from any text, and which do count
    plain, mixed = (module.spec.tokens_per_byte["test"] for module in (read, both))
    assert mixed == pytest.approx(plain * 18 / (18 + spaces), rel=0.02)
    assert "without a token" not in read.describe()
    assert "; without a token in the vocabulary: 4" in both.describe()
    assert "% of train" in both.describe()


def test_data_without_dropped_text_have_the_fingerprint_they_had(read_by, tmp_path: Path) -> None:
    (tmp_path / "read.txt").write_text("the cab that bat. " * 200)
    read_by("text", files=str(tmp_path / "read.txt"), block=8)
    assert not list((tmp_path / "cache").rglob("unread.json"))


TABLES = [
    ("text_classification", "{0}", r"data\.source\.text_column=text, row 7 of train,"),
    ("retrieval_lra", "x\t{0}", r"data\.source\.second_column=second, row 7 of train,"),
]


@pytest.mark.parametrize(("name", "row", "where"), TABLES)
@pytest.mark.parametrize("empty", ["\u200b", "€€", "\u200b \u200b"])
def test_a_row_of_nothing_but_dropped_text_is_refused_by_number(
    name: str, row: str, where: str, empty: str, read_by, tmp_path: Path
) -> None:
    texts = [empty if number == 7 else f"the bat {'ab' * number} €" for number in range(1, 31)]
    lines = [f"{number % 2}\t{row.format(text)}" for number, text in enumerate(texts)]
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = ["label", "text"] if name == "text_classification" else ["label", "first", "second"]
    own = {"files": str(path), "column_names": names, "split": {"seed": 0}, "val_fraction": 0.1, "test_fraction": 0.1}
    own |= {"label_column": "label"}
    with pytest.raises(DataError, match=rf"{where} has only text that the tokenizer has no token for") as caught:
        read_by(name, **own)
    assert "\n" not in str(caught.value)
    path.write_text("".join(f"{line}\n" for line in lines if empty not in line), encoding="utf-8")
    module = read_by(name, **own)
    assert "without a token in the vocabulary" in module.describe()
    with pytest.raises(DataError, match="has no token that the model can read"):
        module.encode(empty)


def test_a_pair_with_a_side_that_is_dropped_is_left_out_and_never_empty(read_by, tmp_path: Path) -> None:
    for side in ("source", "target"):
        (tmp_path / side).write_text("\n".join(["the bat"] * 39 + ["\u200b"]), encoding="utf-8")
    files = {f"{side}_files": str(tmp_path / side) for side in ("source", "target")}
    module = read_by("parallel_text", **files, val_fraction=0.2, test_fraction=0.2, split={"seed": 3})
    for split in ("train", "val", "test"):
        batch = module.splits[split].__getitems__(range(len(module.splits[split])))
        assert (batch.source_tokens != module.spec.padding).any(1).all()
    assert "without a token" in module.describe()


@pytest.mark.parametrize("model", ["Unigram", "WordLevel"])
def test_a_tokenizer_that_fails_on_a_text_is_a_sentence(model: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    made = models.Unigram([("a", -1.0)]) if model == "Unigram" else models.WordLevel({"a": 0}, unk_token="[NONE]")
    Tokenizer(made).save(str(tmp_path / "t.json"))
    tokenizer = File(path=str(tmp_path / "t.json"))
    assert tokenizer.encode("a").tolist() == [0]
    with pytest.raises(
        DataError, match=r"tokenizer\.path=.*t\.json cannot read some of the text \(.*\): use"
    ) as caught:
        tokenizer.encode("b")
    assert "\n" not in str(caught.value)

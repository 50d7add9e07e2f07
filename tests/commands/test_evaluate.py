"""`xformer evaluate`: the numbers of the run, numbers of other data, and nothing in the run changed."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.conftest import SMALL, Command, ComposeJob, Trained
from xformer.data.cache import hash_of
from xformer.runs.open_run import open_run
from xformer.runs.summary import read_summary
from xformer.tokenizers.bpe import BPE
from xformer.training.run import run


def files_of(directory: Path) -> dict[str, str]:
    return {str(path): hash_of(path) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["prose", "reverse", "listops"])
def test_its_own_data_give_the_summary_s_metrics_and_the_run_stays_as_it_is(
    name: str, trained: Trained, xformer: Command, tmp_path: Path
) -> None:
    directory = trained(name)
    before = files_of(directory)
    code, shown, notes = xformer("evaluate", directory, "--output", tmp_path / "found.json")
    assert (code, notes) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    expected = {k: v for k, v in read_summary(directory).metrics.items() if k.startswith(("val/", "test/"))}
    assert found["metrics"] == pytest.approx(expected, rel=1e-5)
    for key, value in expected.items():
        assert key in shown
        assert f"{value:.4f}" in shown
    assert found["checkpoint"].startswith(str(directory))
    assert found["data_fingerprint"] == read_summary(directory).data_fingerprint or name == "prose"
    assert files_of(directory) == before


def test_one_split_can_be_chosen(trained: Trained, xformer: Command) -> None:
    _, shown, _ = xformer("evaluate", trained("reverse"), "--split", "test")
    assert "test/loss" in shown
    assert "val/loss" not in shown


@pytest.mark.parametrize("block", [16, 40])
def test_other_text_at_another_length_with_the_run_s_own_tokenizer(
    block: int, trained: Trained, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, other = trained("pieces"), tmp_path / "other.txt"
    other.write_text("Nothing of this was in the training text: façade! " * 80)

    def never(*arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(BPE, "train", never)
    options = ["--data", f"source.files={other}", f"block={block}", "split.val_fraction=0.5", "--split", "val"]
    code, _, notes = xformer("evaluate", directory, *options, "--output", tmp_path / "found.json")
    assert code == 0, notes
    opened = open_run(directory)
    text = other.read_text()
    ids = opened.data.encode(text[int(len(text) * 0.4) : int(len(text) * 0.9)])
    held_out = torch.tensor([*ids.tolist(), opened.data.spec.end])
    total = 0.0
    with torch.no_grad():
        for end in range(block, len(held_out) - 1 + block, block):
            end, counted = min(end, len(held_out) - 1), min(block, block - (end - len(held_out) + 1))
            logits = opened.task(held_out[None, end - block : end])[0, -counted:]
            total += cross_entropy(logits, held_out[end + 1 - counted : end + 1], reduction="sum").item()
    loss = total / (len(held_out) - 1)
    assert json.loads((tmp_path / "found.json").read_text())["metrics"]["val/loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("reverse", ["--data", "symbols=20"], ["The data's vocabulary is 23 and the model's 19"]),
        ("prose", ["--data", "block=64"], ["A sequence has 64 tokens, and Learned was built for at most 32"]),
        ("prose", ["--data", "blok=64"], ["data.blok is not a parameter", "did you mean block?"]),
        ("prose", ["--data", "block=long"], ["data.block=long has the wrong type"]),
        ("prose", ["--data", "block"], ["--data block is not of the form key=value"]),
        ("prose", ["--data", "_target_=xformer.data.datasets.digits.Digits"], ["would replace the data set"]),
        ("prose", ["--data", "source.files=/no/such/file.txt"], ["data.source.files=/no/such/file.txt"]),
        (
            "prose",
            ["--data", "split.test_fraction=0.0", "--split", "test"],
            ["have no test split; what they have: train, val"],
        ),
        ("prose", ["--output", "/no/such/place.json"], ["--output /no/such/place.json cannot be written"]),
    ],
)
def test_a_mistake_is_one_sentence_and_a_bad_exit_code(
    name: str, options: list[str], words: list[str], trained: Trained, xformer: Command
) -> None:
    code, _, sentence = xformer("evaluate", trained(name), *options)
    assert code == 1
    assert len(sentence.strip().splitlines()) == 1
    for word in words:
        assert word in sentence


def test_other_classes_are_refused_though_there_are_as_many(
    compose_job: ComposeJob, xformer: Command, tmp_path: Path
) -> None:
    for name, classes in (("a", ("business", "sports", "tech")), ("b", ("sports", "tech", "world"))):
        rows = [f"a story of number {number},{label}" for number in range(20) for label in classes]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    files = [f"data.source.files={tmp_path / 'a.csv'}", "data.max_length=32"]
    run(compose_job(*SMALL, "data=text_classification", "tokenizer=byte", *files, directory=tmp_path / "run"))
    code, _, sentence = xformer("evaluate", tmp_path / "run", "--data", f"source.files={tmp_path / 'b.csv'}")
    assert code == 1
    assert "class_names is ['sports', 'tech', 'world'] and the model's ['business', 'sports', 'tech']" in sentence
    assert xformer("evaluate", tmp_path / "run")[0] == 0


def test_a_run_that_is_none_is_refused(xformer: Command, tmp_path: Path) -> None:
    for command in (["evaluate", tmp_path / "none"], ["generate", tmp_path / "none", "--prompt", "a"]):
        code, _, sentence = xformer(*command)
        assert code == 1
        assert "is not a directory; name a run directory" in sentence

"""`xformer generate`: what it writes is what the model says, and what it cannot do is said in a sentence."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Command, Trained
from xformer.attention.full import Full
from xformer.core.capability import Capability
from xformer.runs.open_run import open_run


def test_a_prompt_is_gone_on_from_with_the_most_likely_tokens(trained: Trained, xformer: Command) -> None:
    directory = trained("prose")
    code, shown, notes = xformer("generate", directory, "--prompt", "Every ", "--max-new", 20)
    opened = open_run(directory)
    tokens = torch.from_numpy(opened.data.encode("Every "))
    for _ in range(20):
        with torch.no_grad():
            tokens = torch.cat((tokens, opened.task(tokens[None])[0, -1].argmax()[None]))
    assert (code, notes) == (0, "")
    assert shown == opened.data.decode(tokens.tolist()) + "\n"


def test_a_source_is_answered_and_not_repeated(trained: Trained, xformer: Command) -> None:
    directory = trained("reverse")
    code, shown, _ = xformer("generate", directory, "--prompt", "3 1 4")
    opened = open_run(directory)
    source, target = torch.from_numpy(opened.data.encode("3 1 4"))[None], torch.tensor([[opened.data.spec.begin]])
    while target.shape[1] <= opened.data.spec.length and opened.data.spec.end not in target:
        with torch.no_grad():
            target = torch.cat((target, opened.task(source, None, target)[:, -1:].argmax(-1)), dim=1)
    assert code == 0
    assert shown == opened.data.decode(target[0, 1:].tolist()) + "\n"


@pytest.mark.parametrize(
    "options", [[], ["--beams", 3, "--length-penalty", 0.5, "--early-stop"], ["--temperature", 1.5]]
)
@pytest.mark.parametrize(
    ("name", "prompts"), [("pieces", ["Every", "a class has", "x" * 20]), ("reverse", ["1", "2 3 4"])]
)
def test_a_file_gives_what_its_lines_give_one_by_one(
    name: str, prompts: list[str], options: list[object], trained: Trained, xformer: Command, tmp_path: Path
) -> None:
    directory, file = trained(name), tmp_path / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    common = [*options, "--max-new", 12, "--repetition-penalty", 1.2]
    code, together, _ = xformer("generate", directory, "--file", file, *common)
    assert code == 0
    alone = [
        xformer("generate", directory, "--prompt", prompt, *common, "--seed", row)[1]
        for row, prompt in enumerate(prompts)
    ]
    assert together == "".join(text + ("\n" if name == "pieces" else "") for text in alone)


def test_samples_differ_by_seed_and_filters_bound_them(trained: Trained, xformer: Command) -> None:
    directory = trained("prose")

    def shown(*options: object) -> str:
        return xformer("generate", directory, "--prompt", "a", "--max-new", 30, *options)[1]

    one, same, other = (shown("--top-p", 0.9, "--seed", seed) for seed in (1, 1, 2))
    assert one == same != other
    assert shown("--top-k", 1, "--temperature", 3) == shown()


def test_what_is_computed_again_is_said_on_the_error_stream(
    trained: Trained, xformer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = trained("prose")
    with_state = xformer("generate", directory, "--prompt", "Every", "--max-new", 50)
    assert with_state[2].strip().splitlines() == [
        "The model reads 32 tokens: beyond, it reads the last 32, recomputed for every token."
    ]
    monkeypatch.setattr(Full, "provides", Full.provides & ~Capability.INCREMENTAL)
    without = xformer("generate", directory, "--prompt", "Every", "--max-new", 50)
    assert without[1] == with_state[1]
    assert "This attention has no decoding state: the whole sequence is recomputed for every token." in without[2]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "listops",
            ["--prompt", "1"],
            ["is a run of Classification, which does not generate text", "language_modeling, seq2seq"],
        ),
        ("prose", ["--prompt", "x" * 33], ["has 33 tokens, but the model reads 32 at most; shorten it"]),
        ("reverse", ["--prompt", "1 " * 30], ["has 31 tokens, but the model reads 17 at most"]),
        ("reverse", ["--prompt", "1 x"], ["'1 x' is not a sequence of symbols"]),
        ("prose", ["--prompt", "a", "--temperature", 0], ["temperature=0.0 is out of range"]),
        ("prose", ["--prompt", "a", "--max-new", 0], ["max_new=0 generates nothing"]),
        ("prose", ["--prompt", "a", "--beams", 2, "--top-k", 3], ["beams=2 searches", "does not sample"]),
        ("prose", ["--file", "missing.txt"], ["--file missing.txt cannot be read"]),
        ("prose", ["--file", "empty.txt"], ["--file empty.txt is empty"]),
        ("prose", ["--file", "latin.txt"], ["--file latin.txt is not UTF-8 at byte 1"]),
        ("prose", ["--file", "wide.txt"], ["--file wide.txt is UTF-16, not UTF-8: convert the file"]),
        ("prose", ["--file", "."], ["--file . cannot be read"]),
    ],
)
def test_a_mistake_is_one_sentence_and_a_bad_exit_code(
    name: str,
    options: list[object],
    words: list[str],
    trained: Trained,
    xformer: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = trained(name)
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes("Käse".encode("latin-1"))
    Path("wide.txt").write_text("Käse", encoding="utf-16")
    code, shown, sentence = xformer("generate", directory, *options)
    assert (code, shown) == (1, "")
    assert len(sentence.strip().splitlines()) == 1
    for word in words:
        assert word in sentence


def test_an_empty_prompt_begins_a_text_where_there_is_a_token_for_it(trained: Trained, xformer: Command) -> None:
    code, shown, _ = xformer("generate", trained("prose"), "--prompt", "", "--max-new", 5)
    assert code == 0
    assert len(shown) > 1

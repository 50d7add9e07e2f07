"""`xformer attention` on finished runs of every kind, and what it says to what it cannot draw."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer import cli
from xformer.analysis.reading import labels, read
from xformer.build import CONFIG_FILE
from xformer.configuration import CONF
from xformer.run import run
from xformer.runs import open_run

TREES = [*SMALL, *SMALL_LISTOPS]
PAIRS = [*SMALL, "task=seq2seq", "data.train_size=60", "data.val_size=20", "data.test_size=20"]
TEXT = [
    *SMALL,
    "task=language_modeling",
    "data.block=32",
    "tokenizer=byte",
    f"data.files={CONF.resolve().parent}/LICENSE",
]

Draw = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):  # which the front door sets, for what it starts
        monkeypatch.setenv(name, "1")


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Draw:
    """Run the command, which prints the files it wrote; the numbers among them."""

    def typed(directory: Path, *words: str) -> dict[str, np.ndarray]:
        monkeypatch.setattr(sys, "argv", ["xformer", "attention", str(directory), *words])
        capsys.readouterr()
        cli.main()
        files = [Path(line) for line in capsys.readouterr().out.splitlines()]
        assert files[0].name == "index.html"
        assert all(file.stat().st_size for file in files)
        assert {file for file in files[0].parent.iterdir()} == {*files}
        with np.load(files[-1]) as found:
            return dict(found)

    return typed


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def typed(directory: Path, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["xformer", "attention", str(directory), *words])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert exit.value.code == 1
        assert not (directory / "attention").exists()
        told = " ".join(capsys.readouterr().err.split())
        assert told.startswith("error: ")
        return told

    return typed


def finished(compose_job: ComposeJob, *overrides: str) -> Path:
    job = compose_job(*overrides)
    run(job)
    return job.directory


def test_a_classifier_with_a_class_token(
    compose_job: ComposeJob, draw: Draw, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = finished(compose_job, *TREES, "task.pooling=class", "attention=bigbird")
    long = " ".join(["[MAX", *"4" * 130, "]"])
    assert "133 tokens" in refusal(directory, "--input", long)  # with the class token
    assert "no ListOps expression" in refusal(directory, "--input", "[MAX two ]")
    assert "--target" in refusal(directory, "--input", "[MAX 2 ]", "--target", "2")

    config = OmegaConf.load(directory / CONFIG_FILE)
    config.cache = "${oc.env:XFORMER_CACHE}"  # as it is kept where nobody overrides it
    OmegaConf.save(config, directory / CONFIG_FILE)
    monkeypatch.delenv("XFORMER_CACHE", raising=False)
    found = draw(directory, "--input", "[MAX 2 [MIN 4 7 ] 0 ]")
    names = ["<class>", "[MAX", "2", "[MIN", "4", "7", "]", "0", "]"]
    assert found["attention.queries"].tolist() == found["attention.keys"].tolist() == names
    task = open_run(directory).task
    layers, heads = task.model.size.layers, task.model.size.heads
    assert found["attention"].shape == (layers, heads, 9, 9)
    np.testing.assert_allclose(found["attention"].sum(-1), 1, atol=1e-5)


def test_a_translator_shows_how_it_aligns(
    compose_job: ComposeJob, draw: Draw, refusal: Callable[..., str], tmp_path: Path
) -> None:
    directory = finished(compose_job, *PAIRS)
    assert "--target is empty" in refusal(directory, "--input", "4", "--target", "")
    given = draw(directory, "--input", "4 7 15", "--target", "15 7", "--output", str(tmp_path / "elsewhere"))
    assert given["attention.keys"].tolist() == ["4", "7", "15", "<end>"]
    assert given["decoder_attention.keys"].tolist() == ["<begin>", "15", "7"]
    assert given["cross_attention.queries"].tolist() == ["15", "7", "<end>"]
    assert given["cross_attention.keys"].tolist() == ["4", "7", "15", "<end>"]
    assert given["cross_attention"].shape[2:] == (3, 4)
    assert not (directory / "attention").exists()

    own = draw(directory, "--input", "4 7 15")
    opened = open_run(directory)
    reading = read(opened.task, opened.data, "4 7 15")
    best = opened.task.logits(reading.forward())[0].argmax(-1)  # type: ignore[operator]
    written = labels(opened.data, best.tolist())  # by reading its own words, it would write them again
    assert own["cross_attention.queries"].tolist() == written
    assert own["decoder_attention.keys"].tolist() == ["<begin>", *written[:-1]]


def test_a_language_model_has_visible_whitespace(
    compose_job: ComposeJob, draw: Draw, refusal: Callable[..., str]
) -> None:
    directory = finished(compose_job, *TEXT, "attention=performer", "position=alibi")
    assert "--input is empty" in refusal(directory, "--input", "")
    assert "3,000 tokens" in refusal(directory, "--input", "a" * 3000)
    found = draw(directory, "--input", "a b\n\t$c" * 6)  # longer than the blocks it was trained on
    assert found["attention.keys"].tolist() == [*"a␣b↵⇥$c"] * 6
    assert (np.triu(found["attention"], 1) == 0).all()


def test_what_cannot_be_typed_and_what_is_no_run(
    compose_job: ComposeJob, refusal: Callable[..., str], tmp_path: Path
) -> None:
    directory = finished(compose_job, *SMALL, "data=digits")
    assert "no sequences that can be typed" in refusal(directory, "--input", "0 1 2")
    assert "nowhere" in refusal(tmp_path / "nowhere", "--input", "0 1 2")

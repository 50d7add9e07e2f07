"""`xformer attention` on finished runs of every kind, and what it says to what it cannot draw."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, Command, ComposeJob, Trained
from xformer.inspection.model_input import read_model_input, token_labels
from xformer.runs.job import CONFIG_FILE
from xformer.runs.open_run import open_run
from xformer.training.run import run

HYBRID = ["attention=hybrid", "attention.layers=[local,mamba2,full]"]
Draw = Callable[..., dict[str, np.ndarray]]
Refusal = Callable[..., str]


@pytest.fixture
def draw(xformer: Command) -> Draw:
    """Run the command, which prints the files it wrote; the numbers among them."""

    def typed(directory: Path, *words: str) -> dict[str, np.ndarray]:
        code, shown, _ = xformer("attention", directory, *words)
        assert code == 0
        files = [Path(line) for line in shown.splitlines()]
        assert files[0].name == "index.html"
        assert all(file.stat().st_size for file in files)
        assert {*files[0].parent.iterdir()} == {*files}
        with np.load(files[-1]) as found:
            return dict(found)

    return typed


@pytest.fixture
def refusal(xformer: Command) -> Refusal:
    """The sentence that the command ends with."""

    def typed(directory: Path, *words: str) -> str:
        code, _, told = xformer("attention", directory, *words)
        assert code == 1
        assert not (directory / "attention").exists()
        assert told.startswith("error: ")
        return " ".join(told.split())

    return typed


def finished(compose_job: ComposeJob, *overrides: str) -> Path:
    job = compose_job(*SMALL, *overrides)
    run(job)
    return job.directory


def test_a_classifier_with_a_class_token(
    compose_job: ComposeJob, draw: Draw, refusal: Refusal, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(compose_job, *SMALL_LISTOPS, "task.pooling=class", "attention=bigbird")
    capsys.readouterr()
    long = " ".join(["[MAX", *"4" * 130, "]"])
    assert "133 tokens" in refusal(directory, "--input", long)  # with the class token
    assert "is not a ListOps expression" in refusal(directory, "--input", "[MAX two ]")
    assert "--target" in refusal(directory, "--input", "[MAX 2 ]", "--target", "2")

    config = OmegaConf.load(directory / CONFIG_FILE)
    config.cache = "${oc.env:NOT_SET_ON_THIS_MACHINE}"  # as it is kept where nobody overrides it
    OmegaConf.save(config, directory / CONFIG_FILE)
    found = draw(directory, "--input", "[MAX 2 [MIN 4 7 ] 0 ]")
    names = ["<class>", "[MAX", "2", "[MIN", "4", "7", "]", "0", "]"]
    assert found["attention.queries"].tolist() == found["attention.keys"].tolist() == names
    task = open_run(directory).task
    layers, heads = task.model.size.layers, task.model.size.heads
    assert found["attention"].shape == (layers, heads, 9, 9)
    np.testing.assert_allclose(found["attention"].sum(-1), 1, atol=1e-5)


def test_a_translator_shows_how_it_aligns(trained: Trained, draw: Draw, refusal: Refusal, tmp_path: Path) -> None:
    directory = trained("reverse")
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
    reading = read_model_input(opened.task, opened.data, "4 7 15")
    best = opened.task.logits(reading.forward())[0].argmax(-1)  # type: ignore[operator]
    written = token_labels(opened.data, best.tolist())  # by reading its own words, it would write them again
    assert own["cross_attention.queries"].tolist() == written
    assert own["decoder_attention.keys"].tolist() == ["<begin>", *written[:-1]]


def test_a_language_model_has_visible_whitespace(trained: Trained, draw: Draw, refusal: Refusal) -> None:
    directory = trained("pieces")
    assert "--input is empty" in refusal(directory, "--input", "")
    assert "3,000 tokens" in refusal(directory, "--input", "~" * 3000)
    found = draw(directory, "--input", "a b\n\t$c" * 6)  # longer than the blocks it was trained on
    assert "".join(found["attention.keys"]) == "a␣b↵⇥$c" * 6
    assert (np.triu(found["attention"], 1) == 0).all()


def test_what_cannot_be_typed_and_what_is_no_run(compose_job: ComposeJob, refusal: Refusal, tmp_path: Path) -> None:
    directory = finished(compose_job, "data=digits")
    assert "does not accept typed input" in refusal(directory, "--input", "0 1 2")
    assert "nowhere" in refusal(tmp_path / "nowhere", "--input", "0 1 2")


def test_a_mixer_and_a_hybrid_show_influence_and_say_that_it_is_no_weight(
    compose_job: ComposeJob, xformer: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ["task=language_modeling", "data.block=24", "size.layers=3", "trainer.max_steps=1"]
    for name, attention in {"mamba2": ["attention=mamba2"], "hybrid": HYBRID}.items():
        run(compose_job(*SMALL, *text, *attention, directory=tmp_path / name))
    capsys.readouterr()
    for name, influenced in {"mamba2": [0, 1, 2], "hybrid": [1]}.items():
        code, shown, said = xformer("attention", tmp_path / name, "--input", "to be")
        assert code == 0
        files = [Path(line) for line in shown.splitlines()]
        assert [file.name for file in files[1:-1]] == [f"attention-layer-{layer}.png" for layer in range(3)]
        layers = f"layer{'s' * (len(influenced) > 1)} {', '.join(map(str, influenced))}"
        sentence = f"attention, {layers}: Mamba2 owns its projections and state"
        page = files[0].read_text(encoding="utf-8")
        assert sentence in page
        assert sentence in " ".join(said.split())
        assert page.count("influence, not weights; exact") == len(influenced)
        with np.load(files[-1]) as found:
            assert found["attention.influence.layers"].tolist() == influenced
            assert found["attention.influence"].shape == (len(influenced), 5, 5)
            assert (np.triu(found["attention.influence"], 1) == 0).all()
            assert (found["attention.influence"].diagonal(axis1=1, axis2=2) > 0).all()
            assert ("attention" in found) == (name == "hybrid")
            if name == "hybrid":
                assert found["attention.layers"].tolist() == [0, 2]

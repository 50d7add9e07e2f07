"""A model from options is the one that training begins with; what train.py refuses is refused here."""

from pathlib import Path

import pytest
import torch

import xformer
from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.errors import ConfigError, IncompatibleError
from xformer.runs.open_run import open_run
from xformer.training.run import run

BEFORE_TRAINING = [*SMALL, *SMALL_LISTOPS, "trainer.max_steps=0"]


@pytest.mark.parametrize(
    "chosen", [["attention=performer"], ["attention=linformer", "size.feed_forward=256", "match=parameters"]]
)
def test_it_is_the_model_that_training_begins_with(
    chosen: list[str], compose_job: ComposeJob, tmp_path: Path, cache: Path
) -> None:
    run(compose_job(*BEFORE_TRAINING, *chosen))
    begun = open_run(tmp_path / "run").task.state_dict()
    built = xformer.build_model([*BEFORE_TRAINING, *chosen, f"cache={cache}"]).state_dict()
    assert begun.keys() == built.keys()
    assert all(torch.equal(begun[name], built[name]) for name in begun)


def test_it_gives_logits_and_writes_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = xformer.build_model(["size=tiny", *SMALL_LISTOPS, f"cache={cache}"])
    assert not model.training
    assert model(torch.zeros(2, 9, dtype=torch.long)).shape == (2, 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (["atention=full"], ConfigError, r"atention is not a key .*did you mean attention\?"),
        (["attention=ful"], ConfigError, r"attention=ful is not an option; did you mean full\?"),
        (["attention=linformer", "attention.rank=0"], ConfigError, r"attention\.rank=0 must be at least 1\."),
        (["data=null"], ConfigError, r"data=null is not an option"),
        ("seed", ConfigError, r"seed is not an override .*; write key=value\."),
        (["task=language_modeling", "attention=linformer"], IncompatibleError, "does not go with architecture=decoder"),
    ],
)
def test_what_train_refuses_is_refused(options: str | list[str], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        xformer.build_model(options)

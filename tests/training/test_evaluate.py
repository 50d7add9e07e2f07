"""`xformer evaluate` on a run directory damaged at random: it measures, or ends in one sentence."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Trained
from tests.damage import damaged, sentence_of
from xformer.runs.open_run import open_run
from xformer.training.evaluate import evaluate

READ = ("summary.json", "config.yaml", "data.json", "tokenizer.json", "metrics.csv")


@pytest.mark.parametrize("cases", [12, pytest.param(80, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_run_is_evaluated_or_is_a_sentence(cases: int, trained: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained("pieces"), copy)
    files = [copy / name for name in READ if (copy / name).exists() and name != "config.yaml"]
    files += list((copy / "checkpoints").glob("*.ckpt"))
    said = []
    for number in range(cases):
        with damaged(files, number):
            said.append(sentence_of(lambda: evaluate(open_run(copy), split="val")))
    assert None in said
    assert any(said)

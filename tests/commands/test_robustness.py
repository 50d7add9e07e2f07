"""`xformer robustness`: a table, a sentence, and the commands for what was not run yet."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.studies.conftest import MakeRun
from tests.studies.test_robustness import make_condition
from xformer.studies import study

FILE = """
study: {question: 'Which attention?', expected: 1 minute, baseline: attention=full}
hydra: {sweep: {dir: RUNS}, sweeper: {params: {attention: 'full,linformer', seed: '0,1,2'}}}
"""


@pytest.fixture
def changed(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of runs of a study named `attentions` with another size."""
    make_condition(make_run, None, 0.1)
    (tmp_path / "sweep").rename(tmp_path / "own")
    make_condition(make_run, "tiny", 0.1)
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    (experiments / "attentions.yaml").write_text(FILE.replace("RUNS", str(tmp_path / "own")))
    monkeypatch.setattr(study, "EXPERIMENTS", experiments)
    return tmp_path / "sweep"


def test_verdicts_sentences_and_missing_commands_are_printed(changed: Path, xformer: Command) -> None:
    code, shown, _ = xformer("robustness", "attentions", "size=tiny,base", "--runs", changed)
    text = " ".join(shown.split())
    assert code == 0
    assert "attention=linformer: is worse than attention=full in 2 of 2 settings." in text
    assert "experiment=attentions size=base hydra.sweep.dir=outputs/robustness/attentions" in text
    _, shown, _ = xformer("robustness", "attentions", "size=tiny", "--runs", changed, "--format", "markdown")
    assert "| size=tiny | worse (-0.1020, 3 seeds) |" in shown
    _, shown, _ = xformer("robustness", "attentions", "size=tiny", "--runs", changed, "--format", "json")
    assert len(json.loads(shown)["settings"]) == 2


def test_without_runs_the_commands_alone_are_printed(changed: Path, xformer: Command) -> None:
    code, shown, _ = xformer("robustness", "attentions", "size=base")
    assert code == 0
    assert "What was not run yet:" in shown
    code, _, told = xformer("robustness", "attentions", "attention=full")
    assert code == 1
    assert "attention is varied by attentions itself" in told

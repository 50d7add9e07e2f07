"""The command for more seeds, and what it says of the error rate."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer.config.tune import TunePlan
from xformer.errors import DataError
from xformer.runs.recorded_run import load_runs
from xformer.studies.comparison import compare
from xformer.studies.looks import undeclared_error
from xformer.studies.more_seeds import more_seeds
from xformer.studies.study import Study
from xformer.studies.verdicts import AnalysisPlan

STUDY = Study("attentions", "Which?", None, None, "a minute", Path("outputs"))


def test_undeclared_seeds_have_their_error_rate_beside_them(sweep: Path) -> None:
    command, rate, alone, declare = more_seeds(STUDY, compare(load_runs([sweep])), 2)
    assert command == "python train.py -m experiment=attentions seed=3,4"
    assert f"{100 * undeclared_error([3, 5]):.1f} of 100 cases instead of 5" in rate
    assert "xformer compare attentions --seeds 3,4." in alone
    assert "study.looks: [3, 5]" in declare


def test_seeds_of_trials_are_passed_over(sweep: Path) -> None:
    study = replace(STUDY, tune=TunePlan({"optimizer.lr": (0.1, 0.2)}, (3, 5)))
    assert more_seeds(study, compare(load_runs([sweep])), 2)[0].endswith(" seed=4,6")


def test_without_a_number_it_is_what_the_largest_need_takes(sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    (test,) = (row.test for row in found.rows if row.verdict == "no difference shown")
    assert test
    needed = (test.seeds or 1000) - test.difference.pairs
    command = more_seeds(STUDY, found)[0]
    assert command.count(",") + 1 == min(20, needed)


def test_a_declared_look_is_the_next_number_of_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(4):
        make_run(0.5 + 0.01 * seed, seed=seed)
        make_run(0.5 + 0.013 * seed, seed=seed, attention="local")
    found = compare(load_runs([tmp_path / "sweep"]), plan=AnalysisPlan(looks=(3, 6, 10)))
    command, rate = more_seeds(STUDY, found)
    assert command.endswith("seed=4,5")
    assert rate == "A look is declared at 6 seeds (3, 6, 10): the error rate over all looks stays 5 %."
    assert "has no look at 5 seeds" in more_seeds(STUDY, found, 1)[-1]
    (warning,) = (each for each in found.warnings if "looks" in each)
    assert warning == "looks are declared at 3, 6, 10 seeds: differences are over the first 3 of 4 seeds."


def test_where_nothing_says_how_many_the_number_is_asked_for(sweep: Path) -> None:
    runs = [run for run in load_runs([sweep]) if run.settings["attention"] != "local"]
    with pytest.raises(DataError, match="name the number of seeds to add"):
        more_seeds(STUDY, compare(runs))
    assert re.search(r"seed=3$", more_seeds(STUDY, compare(runs), 1)[0])


def test_runs_without_seeds_are_refused(sweep: Path) -> None:
    runs = [replace(run, summary=replace(run.summary, seed=None)) for run in load_runs([sweep])[:1]]
    with pytest.raises(DataError, match="no seeds to continue from"):
        more_seeds(STUDY, compare(runs), 2)

"""Each committed study: what differs by nothing but the seed is never called better or worse."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.studies.conftest import MakeRun
from xformer.config.groups import CONF
from xformer.config.validate import validate
from xformer.errors import ConfigError, DataError
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.studies import study as study_module
from xformer.studies.committed_runs import RUNS, read_table, write_table
from xformer.studies.comparison import ComparisonRow, compare
from xformer.studies.grouping import group_runs
from xformer.studies.study import Study, studies
from xformer.studies.verdicts import AnalysisPlan

COMMITTED = [name for name in studies() if (Study.of(name).folder / RUNS).exists()]
AGAIN = "other_seeds"
"""The folder with one or more of a study's settings under seeds that its own table does not have."""


def as_another(runs: list[RecordedRun], name: str) -> list[RecordedRun]:
    """Under one more setting, each group's seeds numbered from 0, so that they pair with other seeds."""
    return [
        replace(run, settings={**run.settings, "seeds": name}, summary=replace(run.summary, seed=index))
        for group in group_runs(runs)
        for index, run in enumerate(sorted(group.runs, key=lambda run: run.seed or 0))
    ]


def against_itself(first: list[RecordedRun], other: list[RecordedRun], metric: str | None) -> list[ComparisonRow]:
    """The settings that both have, compared as if they were two."""
    wanted = [group.settings for group in group_runs(other)]
    first = [run for run in first if run.settings in wanted]
    assert not {run.summary.seed for run in first} & {run.summary.seed for run in other}
    rows = compare([*as_another(first, "first"), *as_another(other, "other")], metric, "seeds=first").rows
    return [row for row in rows if row.group.get("seeds") == "other"]


@pytest.mark.parametrize("name", COMMITTED)
def test_two_settings_that_differ_only_by_seed_are_never_called_better_or_worse(name: str) -> None:
    study = Study.of(name)
    other = read_table(study.folder / AGAIN)
    rows = against_itself(study.committed(), other, study.metric)
    assert len(rows) == len(group_runs(other)) > 0
    for row in rows:
        assert row.difference is not None
        assert row.difference.pairs >= 3
        assert row.verdict == "no difference shown"


@pytest.mark.parametrize("name", COMMITTED)
def test_every_group_has_three_seeds_or_more(name: str) -> None:
    study = Study.of(name)
    rows = compare(study.committed(), study.metric, study.baseline).rows
    assert len({frozenset(row.group.settings.items()) for row in rows}) == len(rows) > 1
    assert all(len(row.values) >= 3 for row in rows)


def test_seeds_that_do_differ_would_be_found(make_run: MakeRun) -> None:
    values = {seed: 0.5 + 0.3 * (seed > 2) + 0.001 * seed**2 for seed in range(6)}
    runs = [load_runs([make_run(value, seed=seed)])[0] for seed, value in values.items()]
    (row,) = against_itself(runs[:3], runs[3:], None)
    assert row.verdict == "better"


def write_study(folder: Path, more: str) -> None:
    text = "study:\n  question: Which?\n  expected: a minute\n" + more
    (folder / "looked_at.yaml").write_text(text + "hydra:\n  sweep:\n    dir: outputs/looked_at\n")


def test_a_margin_and_looks_are_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "EXPERIMENTS", tmp_path)
    write_study(tmp_path, "")
    assert Study.of("looked_at").plan == AnalysisPlan()
    write_study(tmp_path, "  margin: 0.01\n  looks: [3, 6, 10]\n  spending: pocock\n")
    assert Study.of("looked_at").plan == AnalysisPlan(0.01, (3, 6, 10), "pocock")
    write_study(tmp_path, "  margin: 1\n  looks: [5]\n")
    assert Study.of("looked_at").plan == AnalysisPlan(1.0, (5,), "obrien_fleming")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("margin: 0", ["study.margin=0 in experiments/looked_at.yaml", "a number above 0"]),
        ("margin: small", ["study.margin=small", "units of the metric"]),
        ("looks: [6, 3]", ["study.looks=[6, 3]", "rising numbers of seeds from 2, such as [3, 6, 10]"]),
        ("looks: [1, 3]", ["study.looks=[1, 3]"]),
        ("looks: []", ["study.looks=[]"]),
        ("looks: often", ["study.looks=often"]),
        ("spending: all", ["study.spending=all", "one of obrien_fleming, pocock"]),
        ("margn: 0.1", ["study.margn", "did you mean margin?"]),
    ],
)
def test_a_plan_that_is_none_is_a_sentence(
    line: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "EXPERIMENTS", tmp_path)
    write_study(tmp_path, f"  {line}\n")
    with pytest.raises(ConfigError) as caught:
        Study.of("looked_at")
    for word in words:
        assert word in str(caught.value)


def test_results_of_an_installed_package_are_recorded_here_and_read_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    experiments = tmp_path / "site-packages" / "conf" / "experiment"
    here = tmp_path / "here"
    for folder in (experiments, here):
        folder.mkdir(parents=True)
    monkeypatch.setattr(study_module, "EXPERIMENTS", experiments)
    monkeypatch.chdir(here)
    write_study(experiments, "")
    study = Study.of("looked_at")
    assert study.folder == Path("experiments/looked_at")
    with pytest.raises(DataError, match=r"no runs.csv in experiments/looked_at or beside its file; run .*record look"):
        study.committed()
    came_with_it = load_runs([make_run(0.5, seed=seed) for seed in (0, 1)])
    write_table(experiments / "looked_at", came_with_it)
    assert len(study.committed()) == 2
    write_table(study.folder, came_with_it[:1])
    assert len(study.committed()) == 1


def test_a_configuration_with_a_plan_is_valid() -> None:
    overrides = ["+study={question: Which, margin: 0.01, looks: [3, 6], spending: pocock}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        validate(compose("train", overrides=overrides))

"""Each committed study: what differs by nothing but the seed is never called better or worse."""

from dataclasses import replace

import pytest

from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.studies.committed_runs import RUNS, read_table
from xformer.studies.comparison import ComparisonRow, compare
from xformer.studies.grouping import group_runs
from xformer.studies.study import Study, studies

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

"""Each committed study: what differs by nothing but the seed is never called better or worse."""

from dataclasses import replace

import pytest

from tests.analysis.conftest import MakeRun
from xformer.analysis.committed import RUNS
from xformer.analysis.comparison import Row, compare
from xformer.analysis.grouping import group_runs
from xformer.analysis.load import Run, load_runs
from xformer.analysis.study import Study, studies

COMMITTED = [name for name in studies() if (Study.of(name).folder / RUNS).exists()]


def halved(runs: list[Run]) -> list[Run]:
    """Half of each setting's seeds under another setting's name, and numbered alike so that they pair."""
    found = []
    for group in group_runs(run for run in runs if run.summary.status == "finished"):
        ordered = sorted(group.runs, key=lambda run: run.seed or 0)
        for index, run in enumerate(ordered):
            settings = {**run.settings, "half": ("first", "second")[index % 2]}
            found.append(replace(run, settings=settings, summary=replace(run.summary, seed=index // 2)))
    return found


def between_halves(runs: list[Run], metric: str | None) -> list[Row]:
    rows = compare(halved(runs), metric, "half=first").rows
    return [row for row in rows if row.group.get("half") == "second"]


@pytest.mark.parametrize("name", COMMITTED)
def test_two_settings_that_differ_only_by_seed_are_never_called_better_or_worse(name: str) -> None:
    study = Study.of(name)
    rows = compare(study.committed(), study.metric, study.baseline).rows
    assert len({frozenset(row.group.settings.items()) for row in rows}) == len(rows) > 1
    assert all(len(row.values) >= 3 for row in rows)
    called = {row.name: row.verdict for row in between_halves(study.committed(), study.metric)}
    assert called
    assert not {"better", "worse"} & {*called.values()}, called


def test_halves_that_do_differ_would_be_found(make_run: MakeRun) -> None:
    directories = [make_run(0.5 + 0.3 * (seed % 2) + 0.001 * seed**2, seed=seed) for seed in range(6)]
    (row,) = between_halves(load_runs(directories), None)
    assert (row.name, row.verdict) == ("half=second", "better")

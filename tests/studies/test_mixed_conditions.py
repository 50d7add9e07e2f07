"""What ought to be one over all runs, and what is said where it is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.studies.mixed_conditions import machine_name, mixed_conditions


@pytest.fixture
def runs(sweep: Path) -> list[RecordedRun]:
    return load_runs([sweep])


def with_(runs: list[RecordedRun], **other: Any) -> list[RecordedRun]:
    """The same with the last one changed."""
    return [*runs[:-1], replace(runs[-1], summary=replace(runs[-1].summary, **other))]


def test_of_one_state_nothing_is_said(runs: list[RecordedRun]) -> None:
    assert mixed_conditions(runs) == []


@pytest.mark.parametrize(
    ("other", "reasons"),
    [
        ({"git": {"commit": "d" * 40, "dirty": False}}, f"the runs come from 2 commits: {'c' * 10}, {'d' * 10}."),
        ({"git": {"commit": "c" * 40, "dirty": True}}, "1 of 9 runs were started from code with uncommitted changes."),
        ({"versions": {"torch": "2.14"}}, "the runs used several versions of torch: 2.13, 2.14."),
        (
            {"hardware": {"cpu": "CPU", "cores": 2, "torch_threads": 1, "cuda": ["H200", "H200"]}},
            "the runs come from different machines: CPU, 2 cores, 1 threads; H200, H200, 2 cores, 1 threads.",
        ),
        ({"data_fingerprint": "g"}, "runs of one data configuration read different data: fingerprints f, g."),
    ],
    ids=["commits", "uncommitted", "versions", "machines", "data"],
)
def test_each_difference_is_a_sentence(other: dict[str, Any], reasons: str, runs: list[RecordedRun]) -> None:
    assert mixed_conditions(with_(runs, **other)) == [reasons]


def test_what_nobody_recorded_is_no_difference(runs: list[RecordedRun]) -> None:
    unknown = with_(runs, git={}, versions={}, hardware={}, data_fingerprint=None)
    assert machine_name(unknown[-1]) is None
    assert mixed_conditions(unknown) == []


def test_other_data_may_be_read_as_other_data(runs: list[RecordedRun]) -> None:
    other = with_(runs, data_fingerprint="g")
    other[-1] = replace(other[-1], settings={**other[-1].settings, "data": "digits"})
    assert mixed_conditions(other) == []


def test_a_plugin_of_several_states_is_a_sentence(runs: list[RecordedRun]) -> None:
    first = {"version": "0.1.0", "commit": "c" * 40, "dirty": False}
    all_of_one = [replace(run, summary=replace(run.summary, plugins={"own": first})) for run in runs]
    assert mixed_conditions(all_of_one) == []
    changed = with_(all_of_one, plugins={"own": {**first, "dirty": True}})
    reasons = (
        f"the runs used several versions of the plugin own: 0.1.0 at {'c' * 10}, 0.1.0 at {'c' * 10} with changes."
    )
    assert mixed_conditions(changed) == [reasons]

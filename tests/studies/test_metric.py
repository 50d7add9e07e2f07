"""Which number is compared, and which way is better."""

from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer.errors import ConfigError
from xformer.runs.recorded_run import RecordedRun, load_runs
from xformer.runs.summary import MonitoredMetric
from xformer.studies.metric import Metric


@pytest.fixture
def runs(sweep: Path) -> list[RecordedRun]:
    return load_runs([sweep])


def test_the_monitored_metric_is_compared_on_the_test_part(runs: list[RecordedRun], make_run: MakeRun) -> None:
    assert Metric.of(runs, None) == Metric("test/accuracy", "max")
    untested = load_runs([make_run(0.5, seed=0, metrics={"val/accuracy": 0.5})])
    assert Metric.of(untested, None) == Metric("val/accuracy", "max")


@pytest.mark.parametrize(
    ("name", "monitored", "mode"),
    [
        ("test/loss", "val/accuracy", "min"), ("test/bits_per_byte", "val/accuracy", "min"),
        ("test/perplexity@64", "val/accuracy", "min"), ("test/bleu", "val/accuracy", "max"),
        ("test/distance", "val/distance", "min"), ("test/distance@64", "val/distance", "min"),
    ],
)  # fmt: skip
def test_the_direction_is_the_monitors_or_else_the_names(
    name: str, monitored: str, mode: str, make_run: MakeRun
) -> None:
    watched = MonitoredMetric(monitored, "min" if "distance" in monitored else "max", 0.5, 3)
    found = load_runs([make_run(0.5, seed=0, metrics={name: 0.5, monitored: 0.5}, monitor=watched)])
    assert Metric.of(found, name) == Metric(name, mode)  # type: ignore[arg-type]


def test_what_is_in_no_run_or_not_one_is_refused(runs: list[RecordedRun], make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"--metric test/los is in no run; did you mean test/loss\?"):
        Metric.of(runs, "test/los")
    other = load_runs([make_run(0.5, seed=0, monitor=MonitoredMetric("val/loss", "min", 0.5, 3))])
    with pytest.raises(ConfigError, match="monitor different metrics; choose one with --metric: "):
        Metric.of([*runs, *other], None)
    with pytest.raises(ConfigError, match="No run has recorded a metric"):
        Metric.of(load_runs([make_run(0.5, seed=0, monitor=None)]), None)

import math
from pathlib import Path

from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.metrics_table import read_metrics, series


def test_one_observation_a_row(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.start_at(0)
    logger.log_metrics({"train/loss": 2.0, "epoch": 0.0, "tokens": 128.0}, step=9)
    logger.log_metrics({"val/loss": 1.5, "val/accuracy": math.nan, "epoch": 1.0}, step=19)
    logger.finalize("success")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,tokens,seconds,metric,value"
    assert len(lines) == 4
    first, second, third = read_metrics(tmp_path)
    assert (first.step, first.epoch, first.tokens, first.metric, first.value) == (9, 0, 128, "train/loss", 2.0)
    assert (second.step, second.epoch, second.tokens, second.metric) == (19, 1, 128, "val/loss")
    assert math.isnan(third.value)
    assert 0 <= first.seconds <= second.seconds


def test_values_are_read_back_to_the_last_bit(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"a": 0.1 + 0.2, "b": 1e-300, "c": math.inf}, step=0)
    assert [row.value for row in read_metrics(tmp_path)] == [0.1 + 0.2, 1e-300, math.inf]


def test_a_run_that_never_ends_well_loses_nothing(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    for step in range(5):
        logger.log_metrics({"loss": float(step)}, step=step)
        assert series(read_metrics(tmp_path))["loss"][-1] == (step, float(step))


def test_resumption_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    first = MetricsCSV(tmp_path)
    for step in range(4):
        first.log_metrics({"loss": float(step), "tokens": 10.0 * step}, step=step)
    second = MetricsCSV(tmp_path)
    second.start_at(2)
    assert [row.step for row in read_metrics(tmp_path)] == [0, 1]
    second.log_metrics({"loss": 20.0}, step=2)
    assert series(read_metrics(tmp_path)) == {"loss": [(0, 0.0), (1, 1.0), (2, 20.0)]}
    assert read_metrics(tmp_path)[-1].tokens == 10


def test_a_line_cut_off_is_left_out_and_a_repeated_one_counts_once(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_metrics({"loss": 2.0}, step=0)
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("1,0,,0.5,lo")
    assert series(read_metrics(tmp_path)) == {"loss": [(0, 2.0)]}

import json
import math
from pathlib import Path

import pytest
import torch

from xformer.errors import DataError
from xformer.runs.summary import MonitoredMetric, Summary, read_summary, write_summary


def full() -> Summary:
    return Summary(
        status="finished",
        choices={"attention": "linformer"},
        overrides=["attention=linformer", "seed=3"],
        seed=3,
        metrics={"val/loss": 1.25, "test/accuracy": 0.5},
        monitor=MonitoredMetric("val/loss", "min", best=1.25, step=40),
        floors={"val/loss": 2.0},
        parameters=1000,
        tokens_seen=4096,
        git={"commit": None, "dirty": None},
        attention={"encoder": "linformer"},
    )


def test_summary_is_read_back_as_written(tmp_path: Path) -> None:
    path = write_summary(tmp_path / "new", full())
    assert path == tmp_path / "new" / "summary.json"
    assert read_summary(tmp_path / "new") == full()


def test_what_is_not_a_number_becomes_null(tmp_path: Path) -> None:
    metrics = {"a": math.nan, "b": -math.inf, "c": torch.tensor(1.5), "d": torch.tensor(math.nan)}
    path = write_summary(tmp_path, Summary(status="failed", error="It broke.", metrics=metrics))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["metrics"] == {"a": None, "b": None, "c": 1.5, "d": None}


def test_a_failed_write_leaves_the_old_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_summary(tmp_path, full())

    def full_disk(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_summary(tmp_path, Summary(status="failed"))
    assert read_summary(tmp_path) == full()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": 1}', '{"status": "finished", "monitor": {"best": 1}}'])
def test_a_damaged_summary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(DataError, match="not a run's summary"):
        read_summary(tmp_path)


def test_a_directory_without_summary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run directory"):
        read_summary(tmp_path)


def test_keys_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    path = write_summary(tmp_path, full())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"carbon_grams": 1}))
    assert read_summary(tmp_path) == full()

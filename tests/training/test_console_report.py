"""What a run and a sweep show on the screen."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from tests.conftest import SMALL, ComposeJob
from tests.core.fake_cuda import H200, FakeCuda
from xformer.core import devices
from xformer.runs import sweep
from xformer.runs.summary import MonitoredMetric, Summary, write_summary
from xformer.training import console_report


@pytest.mark.parametrize(("device", "shown"), [("cuda", H200), ("cuda:1", "NVIDIA L4"), ("cpu", "AMD EPYC")])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_header_names_the_card_and_the_precision(
    device: str, shown: str, precision: Any, compose_job: ComposeJob,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(devices, "cuda", FakeCuda(H200, "NVIDIA L4"))
    trainer = Trainer(max_steps=5, precision=precision, accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(trainer.strategy, "_root_device", torch.device(device))
    summary = Summary(status="failed", parameters=1, flops_per_token=1.0, hardware={"cpu": "AMD EPYC"})
    console_report.run_header(compose_job(*SMALL), trainer, "data", summary)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("device"))
    assert f"1 x {shown}, " in line
    assert line.rstrip().endswith(f", precision {precision}")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 second"), (40.0, "40 seconds"), (840.0, "14 minutes"), (12600.0, "3.5 hours")]
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert console_report._duration(seconds) == text


def test_one_table_over_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for number in range(11):
        summary = Summary("failed" if number == 10 else "finished", overrides=["size=tiny", f"seed={number}"])
        if number < 10:
            summary.metrics = {"val/loss": 0.5 + number, "test/loss": 0.25, "train/loss": 0.1}
            summary.monitor = MonitoredMetric("val/loss", "min", 0.5, 3)
        summary.wall_seconds = 12.4
        write_summary(tmp_path / str(number), summary)
    under_way = sweep.Sweep(str(tmp_path), 11, ("seed",), 1, 0.0)
    console_report.sweep_table(under_way, under_way.summaries())
    shown = capsys.readouterr().out
    assert "Sweep: 11 cells, 10 finished, 1 failed" in shown
    rows = re.findall(r"│ (\d+) +│ +([\d.]*) │ +([\d.]*) │ +(\d+ s) │ (\w+) +│", shown)
    assert [row[0] for row in rows] == [str(number) for number in range(11)]
    assert rows[2] == ("2", "2.5000", "0.2500", "12 s", "finished")
    assert rows[10] == ("10", "", "", "12 s", "failed")
    assert shown.rstrip().splitlines()[-1].split() == ["next", "xformer", "compare", str(tmp_path)]
    assert "train/loss" not in shown
    assert all(len(text) <= 80 for text in shown.splitlines()[:-1])

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.callbacks.tiny import Tiny, loaders, trainer
from xformer.callbacks.progress import Bar, ProgressLines, progress, texts
from xformer.callbacks.throughput import Throughput
from xformer.logging.metrics_csv import MetricsCSV

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def fit(directory: Path, *callbacks: Any, **options: Any) -> None:
    run = trainer(directory, *callbacks, enable_progress_bar=True, logger=MetricsCSV(directory), **options)
    run.fit(Tiny(), **loaders())


def test_a_terminal_gets_the_bar_and_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(progress(seconds=1.0), Bar)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    lines = progress(seconds=3.0)
    assert isinstance(lines, ProgressLines)
    assert lines.seconds == 3.0


def test_a_line_at_each_validation_and_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, Throughput(warmup=0), ProgressLines(seconds=1000.0), val_check_interval=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["2/10", "4/10", "7/10", "9/10", "10/10"]
    shape = r"step \d+/10  train/loss \d+\.\d{3}  tokens/s [\d,]+  left \d:\d\d"
    assert all(re.fullmatch(shape, line) for line in lines)


def test_a_line_whenever_it_is_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, ProgressLines(seconds=0.0), limit_val_batches=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/10" for step in range(1, 11)]


def test_other_processes_print_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(seconds=0.0)
    lines.disable()
    fit(tmp_path, lines)
    assert capsys.readouterr().out == ""


def test_the_bar_shows_what_people_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bar, "_SECONDS", 0.0)
    bar = Bar()
    fit(tmp_path, Throughput(warmup=0), bar)
    shown = bar.get_metrics(bar.trainer, bar.trainer.lightning_module)
    assert set(shown) == {"step", "train/loss", "tokens/s", "left"}
    assert shown["step"] == "10/10"
    assert bar._get_train_description(3) == "Epoch 3"


def test_texts() -> None:
    assert texts({"train/loss": 1.23449, "tokens_per_second": 12345.6, "note": "x"}) == {
        "train/loss": "1.234",
        "tokens/s": "12,346",
        "note": "x",
    }

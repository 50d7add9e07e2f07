import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from rich.console import Console
from rich.text import Text

from tests.callbacks.tiny import Tiny, loaders, trainer
from xformer.callbacks.progress import Bar, ProgressLines, format_metrics, progress, progress_line
from xformer.callbacks.throughput import Throughput
from xformer.loggers.metrics_csv import MetricsCSV

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


LOGGED = {  # by task, in the order in which they are logged
    "classification": ["loss", "accuracy", "macro_f1"],
    "language_modeling": ["loss", "perplexity", "bits_per_byte"],
    "masked_language_modeling": ["loss", "accuracy", "perplexity"],
    "seq2seq": ["loss", "perplexity", "token_accuracy"],
    "image_classification": ["loss", "accuracy", "top_5_accuracy"],
}


def metrics_of(names: list[str], scale: float) -> dict[str, float]:
    training = {f"train/{name}": scale * 1.2344 for name in names}
    return {**training, "tokens_per_second": scale * 12345.6, **{f"val/{name}": scale * 2.3451 for name in names}}


@pytest.mark.parametrize("doing", ["", "validating 3/1,000"])
@pytest.mark.parametrize("task", LOGGED)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_bar_is_one_line_at_every_width(task: str, scale: float, doing: str) -> None:
    for width in range(60, 201):
        console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
        text = progress_line(
            width, step=15_000, total=200_000, doing=doing, metrics=metrics_of(LOGGED[task], scale), left="12:34:56"
        )
        console.print(Text(text, no_wrap=True))
        shown = console.file.getvalue()
        assert shown.count("\n") == 1
        assert len(shown.rstrip("\n")) < width
        assert shown.count("left") == 1
        assert shown.startswith("15,000/200,000")
        assert shown.rstrip().endswith("12:34:56 left")


def test_eighty_columns_hold_what_people_read() -> None:
    shown = progress_line(
        80, step=1500, total=2000, metrics=metrics_of(["loss", "accuracy", "macro_f1"], 1.0), left="1:23:02"
    )
    assert re.fullmatch(r"1,500/2,000  ━+─+  loss 1.234  accuracy 1.234  12,346 tokens/s  1:23:02 left", shown)
    done, rest = shown.count("━"), shown.count("─")
    assert done / (done + rest) == pytest.approx(0.75, abs=0.2)


def test_a_wider_line_holds_more_and_an_unknown_total_has_no_bar() -> None:
    metrics = metrics_of(["loss", "accuracy"], 1.0)
    assert "val/accuracy 2.345" in progress_line(200, step=1, total=2, metrics=metrics, left="?")
    assert "val/" not in progress_line(60, step=1, total=2, metrics=metrics, left="?")
    assert progress_line(80, step=7, total=None, metrics={}, left="?") == "step 7  ? left"
    assert progress_line(80, step=None, total=None, doing="testing 3/10", metrics={}, left=None) == "testing 3/10"


def terminal(width: int = 80) -> Console:
    return Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)


def test_the_bar_is_drawn_while_training_and_leaves_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bar, "_SECONDS", 0.0)
    bar = Bar(terminal())
    fit(tmp_path, Throughput(warmup=0), bar, val_check_interval=2)
    shown = bar._console.file.getvalue()
    assert "validating 1/" in shown
    lines = [text for text in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", shown) if text.strip()]
    assert all(len(text) < 80 for text in lines)
    assert re.fullmatch(r"10/10  ━+  loss \d\.\d{3}  [\d,]+ tokens/s  0:00 left", lines[-1].strip())
    assert bar._live is None


def test_the_bar_leaves_the_terminal_when_something_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bar, "_SECONDS", 0.0)

    class Fails(Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == 3:
                raise ValueError("no")

    bar = Bar(terminal())
    with pytest.raises(ValueError, match="no"):
        fit(tmp_path, bar, Fails())
    assert bar._live is None
    assert bar._console.file.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_a_disabled_bar_draws_nothing(tmp_path: Path) -> None:
    bar = Bar(terminal())
    bar.disable()
    fit(tmp_path, bar)
    assert bar._console.file.getvalue() == ""


@pytest.mark.parametrize("make", [lambda: Bar(terminal()), lambda: ProgressLines(seconds=1000.0)], ids=["bar", "lines"])
def test_a_resumed_run_says_from_which_step(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = trainer(tmp_path, enable_progress_bar=False, enable_checkpointing=False, max_steps=5)
    first.fit(Tiny(), **loaders())
    first.save_checkpoint(tmp_path / "five.ckpt")
    capsys.readouterr()
    run = trainer(tmp_path, make(), enable_progress_bar=True, max_steps=10)
    run.fit(Tiny(), **loaders(), ckpt_path=tmp_path / "five.ckpt")
    assert "resumed from step 5 of 10\n" in capsys.readouterr().out
    run = trainer(tmp_path, make(), enable_progress_bar=True, max_steps=4)
    run.fit(Tiny(), **loaders())
    assert "resumed" not in capsys.readouterr().out


def test_texts() -> None:
    assert format_metrics({"train/loss": 1.23449, "tokens_per_second": 12345.6, "note": "x"}) == {
        "train/loss": "1.234",
        "tokens/s": "12,346",
        "note": "x",
    }

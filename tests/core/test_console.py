"""Sentences come out as they are, on the stream that they are for."""

import pytest

from xformer.core import console

MARKED = "sizes [1, 2] and [bold]no mark-up[/] " + "and so on " * 30


@pytest.mark.parametrize(
    ("tell", "stream", "start"),
    [(console.error, "err", "error: "), (console.info, "out", ""), (console.info_on_stderr, "err", "")],
)
def test_a_sentence_is_whole_on_one_line_and_its_brackets_are_no_mark_up(
    tell, stream: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(MARKED)
    shown = capsys.readouterr()
    assert getattr(shown, stream) == f"{start}{MARKED}\n"
    assert not getattr(shown, "out" if stream == "err" else "err")


def test_metrics_have_four_digits_and_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    console.metrics({"val/loss": 1.23456, "val/accuracy": None}, {"data": "[1, 2]"})
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [["val/loss", "1.2346"], ["val/accuracy", "nan"]]
    assert lines[-1].split() == ["data", "[1,", "2]"]

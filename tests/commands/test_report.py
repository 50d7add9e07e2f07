"""`xformer report`: one page, and the figures where they are asked for."""

from pathlib import Path

import pytest

from tests.conftest import Command


def test_the_page_lies_here_unless_another_place_is_given(
    sweep: Path, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert xformer("report", sweep, "--title", "Which & why") == (0, "report.html\n", "")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Which &amp; why</title>" in page
    assert xformer("report", sweep, "--title", "Which & why", "-o", "new/page.html")[1] == "new/page.html\n"
    assert Path("new/page.html").read_text(encoding="utf-8") == page


def test_every_file_that_is_written_is_named(sweep: Path, xformer: Command, tmp_path: Path) -> None:
    code, shown, _ = xformer("report", sweep, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    page, *figures = map(Path, shown.splitlines())
    assert code == 0
    assert page == tmp_path / "page.html"
    assert {*figures} == {*(tmp_path / "figures").iterdir()}
    assert {figure.suffix for figure in figures} == {".svg", ".png"}


def test_figures_that_cannot_be_written_are_a_sentence(sweep: Path, xformer: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, told = xformer("report", sweep, "-o", tmp_path / "page.html", "--figures", tmp_path / "file" / "figures")
    assert code == 1
    assert "figures cannot be written" in " ".join(told.split())

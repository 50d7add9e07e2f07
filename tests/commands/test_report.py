"""`xformer report`: one page, and the figures where they are asked for."""

import re
from html import unescape
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.studies.conftest import MakeRun


def test_the_page_lies_here_unless_another_place_is_given(
    sweep: Path, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert xformer("report", sweep, "--title", "Which & why") == (0, "report.html\n", "")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Which &amp; why</title>" in page
    assert xformer("report", sweep, "--title", "Which & why", "-o", "new/page.html")[1] == "new/page.html\n"
    foot = re.compile("<footer>.*</footer>")
    assert foot.sub("", Path("new/page.html").read_text(encoding="utf-8")) == foot.sub("", page)
    (command,) = re.findall("<p>Command: (.*?)</p>", page)
    assert unescape(command) == f"xformer report {sweep} --title 'Which & why'"


def test_every_file_that_is_written_is_named(sweep: Path, xformer: Command, tmp_path: Path) -> None:
    code, shown, _ = xformer("report", sweep, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    page, *figures = map(Path, shown.splitlines())
    assert code == 0
    assert page == tmp_path / "page.html"
    assert {*figures} == {*(tmp_path / "figures").iterdir()}
    assert {figure.suffix for figure in figures} == {".svg", ".png"}


def test_several_experiments_are_one_page_and_a_folder_of_figures_each(
    sweep: Path, make_run: MakeRun, xformer: Command, tmp_path: Path
) -> None:
    make_run(0.5, seed=0, choices={"attention": "full", "data": "digits"})
    words = ["-o", tmp_path / "page.html", "--figures", tmp_path / "figures", "--style", "paper"]
    code, shown, _ = xformer("report", sweep, *words)
    assert code == 0
    page, *figures = map(Path, shown.splitlines())
    assert page.read_text(encoding="utf-8").count("<section id=") == 2
    assert {figure.parent.name for figure in figures} == {"task=--data=listops", "task=--data=digits"}
    assert {figure.name for figure in figures if figure.suffix == ".pdf"} == {
        f"{name}-{width}.pdf" for name in ("curves", "cost") for width in ("column", "page")
    }


def test_figures_that_cannot_be_written_are_a_sentence(sweep: Path, xformer: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, told = xformer("report", sweep, "-o", tmp_path / "page.html", "--figures", tmp_path / "file" / "figures")
    assert code == 1
    assert "figures cannot be written" in " ".join(told.split())

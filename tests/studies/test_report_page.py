"""The page: its numbers are the CSV's, and a real browser shows it without asking anyone."""

import csv
import io
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

import xformer
from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import Comparison, compare
from xformer.studies.experiments import compare_experiments
from xformer.studies.figure_svg import page_svg
from xformer.studies.output_formats import as_csv
from xformer.studies.page_origin import page_origin
from xformer.studies.page_table import Cell, html_table
from xformer.studies.report_page import report_page
from xformer.studies.study import Study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def html(sweep: Path) -> str:
    return page_of(compare(load_runs([sweep])), "Three <attentions>")


@pytest.fixture(scope="module")
def large_page() -> str:
    """Twelve groups that differ in two settings, in three tables and two figures."""
    study = Study.of("transduction_positions")
    return page_of(compare(study.committed(), study.metric, study.baseline), study.name)


def page_of(found: Comparison, title: str = "x") -> str:
    return report_page([found], title)


def cells(html: str, table: int) -> list[list[str]]:
    """The values behind the cells of a table of the page."""
    body = re.findall(r"<tbody.*?>(.*?)</tbody>", html, re.DOTALL)[table]
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body, re.DOTALL)
    return [[unescape(value) for value in re.findall(r'data-value="([^"]*)"', row)] for row in rows]


def test_its_numbers_are_those_of_the_csv(html: str, sweep: Path) -> None:
    expected = list(csv.DictReader(io.StringIO(as_csv(compare(load_runs([sweep]))))))
    quality = ["attention", "seeds", "mean", "difference", "p_holm", "detectable_difference"]
    assert [row[:-1] for row in cells(html, 0)] == [[row[column] for column in quality] for row in expected]
    assert [row[-1] for row in cells(html, 0)] == [row["verdict"] for row in expected]
    budget = ["attention", "parameters", "training_flops", "tokens", "wall_seconds", "peak_memory_bytes"]
    assert cells(html, 1) == [[row[column] for column in budget] for row in expected]
    assert "Three &lt;attentions&gt;" in html


def test_a_number_has_three_digits_and_all_of_them_under_the_pointer(html: str, sweep: Path) -> None:
    row = compare(load_runs([sweep])).rows[1]
    assert row.interval is not None
    hover = f"{row.mean!r}, 95 % [{row.interval.low!r}, {row.interval.high!r}]"
    (shown,) = re.findall(rf'title="{re.escape(hover)}".*?<span>(.*?)</span>', html)
    mean, low, high = re.findall(r"\d\.\d+", shown)
    for text, value in ((mean, row.mean), (low, row.interval.low), (high, row.interval.high)):
        assert len(text.lstrip("0.")) == 3
        assert float(text) == pytest.approx(value, rel=5e-3)


def test_a_point_of_a_figure_says_its_values(html: str, sweep: Path) -> None:
    found = compare(load_runs([sweep]))
    titles = re.findall(r"<title>(.*?)</title>", html, re.DOTALL)
    for row in found.rows:
        assert f"{row.name}\ntraining FLOPs {row.budget.flops:.15g}\ntest/accuracy {row.mean!r}" in titles
        for run in row.group.runs:
            for step, value in run.curve("val/accuracy").items():
                assert f"{row.name} seed={run.seed}\noptimiser step {step}\nval/accuracy {value!r}" in titles


def test_a_figure_names_itself_for_whoever_does_not_see_it() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1], [2, 3], gid="group", marker="o", label="a <b>")
    drawn = page_svg(figure, "one", 'a "label"')
    assert drawn.startswith("<svg")
    assert 'aria-label="a &quot;label&quot;"' in drawn
    assert "<title>a &lt;b&gt;\n 1\n 3.0</title>" in drawn
    assert not {*re.findall(r'id="([^"]+)"', page_svg(figure, "two", ""))} & {*re.findall(r'id="([^"]+)"', drawn)}


def test_a_cell_is_escaped_and_sorted_by_its_value() -> None:
    table = html_table(["<a>", "b"], [[Cell("<x>", text=True), Cell("2.5", 2.4999, below="[2, 3]", hover='"all"')]])
    assert "<button>&lt;a&gt;</button>" in table
    assert 'data-value="&lt;x&gt;"><span>&lt;x&gt;</span></th>' in table
    assert (
        'title="&quot;all&quot;" data-label="b" data-value="2.4999"><span>2.5<small>[2, 3]</small></span></td>' in table
    )


def test_no_two_parts_of_a_page_have_one_id(html: str) -> None:
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(names) == len({*names})
    assert {*re.findall(r'href="#([^"]+)"', html)} <= {*names}
    assert {*re.findall(r"url\(#([^)]+)\)", html)} <= {*names}


def test_several_experiments_are_sections(sweep: Path, make_run: MakeRun) -> None:
    for seed in range(3):
        for name in ("full", "local"):
            make_run(0.3 + 0.1 * seed, seed=seed, attention=name, choices={"attention": name, "data": "digits"})
    html = report_page(compare_experiments(load_runs([sweep])), "Two")
    sections = html.split('<section id="experiment-')[1:]
    assert [re.findall(r"<h2>(.*?)</h2>", section) for section in sections] == [
        ["task=- data=listops"],
        ["task=- data=digits"],
    ]
    assert [[row[0] for row in cells(section, 0)] for section in sections] == [
        ["full", "linformer", "local"],
        ["full", "local"],
    ]
    assert len(re.findall(r'\bid="([^"]+)"', html)) == len({*re.findall(r'\bid="([^"]+)"', html)})


def test_the_foot_says_where_a_page_comes_from(sweep: Path) -> None:
    found = [compare(load_runs([sweep]))]
    now = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    written, command, runs = page_origin(["xformer", "report", "a b"], found, now)
    assert written.startswith(f"Written 2026-01-02 03:04 UTC by xformer {xformer.__version__}")
    assert command == "Command: xformer report 'a b'"
    assert runs == "Runs: 9 runs, of commit cccccccccc, torch 2.13, on CPU, 2 cores, 1 thread."
    page = report_page(found, "x", [written, command, runs])
    assert escape(command, quote=False) in page.replace("&#x27;", "'")


def test_a_page_names_no_address_to_fetch_from(html: str) -> None:
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(?!data:)", html)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_a_table_without_curves_says_what_would_give_them(html: str, sweep: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "study", load_runs([sweep]))
    assert "No learning curves" in page_of(compare(read_table(tmp_path / "study")))
    assert "No learning curves" not in html


def test_what_training_flops_are_is_said_where_they_stand(html: str, make_run: MakeRun, tmp_path: Path) -> None:
    assert "FLOPs per token at the longest sequence times the tokens without padding" in html
    make_run(0.5, seed=0, flops_per_token=None, attention="sparse")
    (run,) = (run for run in load_runs([tmp_path / "sweep"]) if run.settings["attention"] == "sparse")
    assert "longest sequence" not in page_of(compare([run]))


def test_a_run_that_failed_stands_on_the_page(sweep: Path, make_run: MakeRun) -> None:
    make_run(None, seed=3, status="failed", error="The loss became <NaN>.")
    assert "The loss became &lt;NaN&gt;." in page_of(compare(load_runs([sweep])))


def browse(document: str, script: str, tmp_path: Path, width: int = 375) -> Any:
    """Open a page in a window of some pixels, run a script in it and give back what it returns."""
    file = tmp_path / "window.html"
    frame = f'<iframe style="border:0;width:{width}px;height:700px" srcdoc="{escape(document, quote=True)}"></iframe>'
    run = f"""<script>document.querySelector("iframe").addEventListener("load", event => {{
      const view = event.target.contentWindow, page = view.document;
      const found = (() => {{ {script} }})();
      document.body.innerHTML = "<pre></pre>";
      document.querySelector("pre").textContent = JSON.stringify(found);
    }});</script>"""
    file.write_text(f"<!doctype html><body>{frame}{run}</body>", encoding="utf-8")
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    assert found, shown[-500:]
    return json.loads(unescape(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_phone_shows_it_sorts_it_and_asks_nobody(html: str, tmp_path: Path) -> None:
    seen = browse(
        html,
        """
        const table = page.querySelector("table"), heads = [...table.querySelectorAll("thead th")];
        const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
        const click = title => {
          const head = heads.find(head => head.textContent === title);
          head.querySelector("button").click();
          return [head.getAttribute("aria-sort"), names()];
        };
        const before = names();
        return {
          before, up: click("test/accuracy"), down: click("test/accuracy"), text: click("attention"),
          width: view.innerWidth, needed: page.documentElement.scrollWidth,
          requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
          figures: [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width)
            .filter(width => width),
          labelled: [...page.querySelectorAll("figure svg")].every(svg => svg.getAttribute("aria-label")),
        };
        """,
        tmp_path,
    )
    assert seen["before"] == ["full", "linformer", "local"]
    assert seen["up"] == ["ascending", ["linformer", "full", "local"]]
    assert seen["down"] == ["descending", ["local", "full", "linformer"]]
    assert seen["text"] == ["ascending", ["full", "linformer", "local"]]
    assert seen["width"] == 375
    assert seen["needed"] <= 375
    assert seen["requests"] == []
    assert seen["labelled"]
    assert all(0 < width <= 375 for width in seen["figures"])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_cut_in_a_window(width: int, tmp_path: Path, large_page: str) -> None:
    seen = browse(
        large_page,
        """
        const shown = element => element.getClientRects().length > 0;
        const beyond = element => {
          const box = element.getBoundingClientRect();
          return box.left < -0.5 || box.right > view.innerWidth + 0.5 || element.scrollWidth > element.clientWidth + 1;
        };
        page.querySelectorAll("details").forEach(details => details.open = true);
        const seeds = [...page.querySelectorAll(".seed")];
        const before = seeds.filter(shown).length;
        page.querySelectorAll(".seeds").forEach(box => box.click());
        const figures = [...page.querySelectorAll("figure svg")].filter(shown);
        const text = figures.flatMap(svg => [...svg.querySelectorAll("text")]).filter(shown);
        return {
          needed: page.documentElement.scrollWidth,
          cut: [...page.querySelectorAll("table, th, td, td span, p, li, figcaption, h1, h2")].filter(shown)
            .filter(beyond).map(element => element.tagName + " " + element.textContent.slice(0, 40)),
          columns: page.querySelector("tbody tr").cells.length,
          before, after: seeds.filter(shown).length,
          share: figures.map(svg => svg.getBoundingClientRect().width / view.innerWidth),
          text: Math.min(...text.map(label => label.getBoundingClientRect().height)),
          outside: text.filter(label => {
            const box = label.getBoundingClientRect(), all = label.ownerSVGElement.getBoundingClientRect();
            return box.left < all.left - 1 || box.right > all.right + 1;
          }).map(label => label.textContent),
          requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
        };
        """,
        tmp_path,
        width,
    )
    assert seen["needed"] <= width
    assert seen["cut"] == []
    assert seen["outside"] == []
    assert seen["columns"] == 8
    assert (seen["before"], seen["after"] > 0) == (0, True)
    assert len(seen["share"]) == 2
    assert min(seen["share"]) > (0.44 if width == 1920 else 0.87)  # a bar to scroll takes 15 pixels
    assert seen["text"] >= 10
    assert seen["requests"] == []

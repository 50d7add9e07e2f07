"""The page: its numbers are the CSV's, and a real browser shows it without asking anyone."""

import csv
import io
import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import Comparison, compare
from xformer.studies.figures import figures, pareto_front, write_figures
from xformer.studies.output_formats import as_csv
from xformer.studies.report_page import report_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def html(sweep: Path) -> str:
    return page_of(compare(load_runs([sweep])), "Three <attentions>")


def page_of(found: Comparison, title: str = "x") -> str:
    return report_page(found, title, figures(found))


def test_its_numbers_are_those_of_the_csv(html: str, sweep: Path) -> None:
    expected = list(csv.DictReader(io.StringIO(as_csv(compare(load_runs([sweep]))))))
    body = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)[0]
    shown = [re.findall(r'data-value="([^"]*)"', row) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)]
    columns = ["attention", "seeds", "mean", "low", "difference", "p_holm", "detectable_difference", "verdict"]
    columns += ["parameters", "training_flops", "tokens", "wall_seconds", "peak_memory_bytes"]
    assert shown == [[row[column] for column in columns] for row in expected]
    assert "Three &lt;attentions&gt;" in html


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


def test_figures_are_drawn_from_what_the_runs_hold(sweep: Path, make_run: MakeRun, tmp_path: Path) -> None:
    found = compare(load_runs([sweep]))
    drawn = figures(found)
    assert set(drawn) == {"curves", "cost"}
    line = drawn["curves"].axes[0].get_lines()[0]
    means = [sum(found.rows[0].values.values()) / 3 * step / 3 for step in (1, 2, 3)]
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx(means)
    names = {path.name for path in write_figures(figures(found), tmp_path / "figures")}
    assert names == {"curves.svg", "curves.png", "cost.svg", "cost.png"}


def test_a_metric_by_length_is_a_figure(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        for name in ("full", "local"):
            lengths = {f"test/accuracy@{n}": 1.0 / n + seed for n in (128, 256)}
            make_run(0.5, seed=seed, attention=name, metrics={"test/accuracy": 0.5, **lengths})
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["length"].axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [128, 256]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([1 / 128 + 0.5, 1 / 256 + 0.5])


def test_a_metric_by_length_begins_at_the_length_trained_at(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(2):
        further = {"test/accuracy@256": 0.4, "test/accuracy@512": 0.3 + seed, "test/loss@256": 9.0}
        text = {"config": {"data": {"block": 128}}}
        make_run(0.5, seed=seed, metrics={"test/accuracy": 0.5 + 0.2 * seed, **further}, **text)
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["length"].axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [128, 256, 512]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([0.6, 0.4, 0.8])
    make_run(0.5, seed=0, attention="local", config={"data": {"block": 128}})  # which was tested at no other length
    found = compare(load_runs([tmp_path / "sweep"]))
    assert [len(line.get_xdata()) for line in figures(found)["length"].axes[0].get_lines()] == [3, 0]


def test_the_intervals_of_the_figures_are_those_of_the_table(make_run: MakeRun, tmp_path: Path) -> None:
    values = [0.5 + 0.01 * seed**2 for seed in range(10)]
    for seed, value in enumerate(values):
        make_run(value, seed=seed)
    found = compare(load_runs([tmp_path / "sweep"]))
    between = found.rows[0].interval
    assert between is not None
    drawn = figures(found)
    (bar,) = drawn["cost"].axes[0].containers[0].lines[2]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([between.low, between.high])
    (shade,) = drawn["curves"].axes[0].collections
    at_the_end = [y for x, y in shade.get_paths()[0].vertices if x == 3]
    assert [min(at_the_end), max(at_the_end)] == pytest.approx([between.low, between.high])


def test_the_front_holds_what_nothing_beats(make_run: MakeRun, tmp_path: Path) -> None:
    for name, value, tokens in [("full", 0.9, 400), ("local", 0.8, 300), ("sparse", 0.7, 350), ("linformer", 0.5, 100)]:
        make_run(value, seed=0, attention=name, tokens_seen=tokens)
    found = compare(load_runs([tmp_path / "sweep"]))
    assert [row.name.partition("=")[2] for row in pareto_front(found, "flops")] == ["linformer", "local", "full"]
    less = compare(load_runs([tmp_path / "sweep"]), "test/loss")
    assert [row.name.partition("=")[2] for row in pareto_front(less, "flops")] == ["linformer", "local", "full"]


def test_the_front_is_of_the_cost_that_is_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    for name, value, flops, seconds in [
        ("full", 0.9, 1e4, 30.0),
        ("local", 0.8, None, 20.0),
        ("sparse", 0.7, 1.0, 10.0),
    ]:
        make_run(value, seed=0, attention=name, flops_per_token=flops, wall_seconds=seconds)
    axes = figures(compare(load_runs([tmp_path / "sweep"])))["cost"].axes[0]
    assert axes.get_xlabel() == "time"
    front = next(line for line in axes.get_lines() if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == [10.0, 20.0, 30.0]
    assert list(front.get_ydata()) == [0.7, 0.8, 0.9]


def test_seeds_that_give_one_number_are_drawn_without_a_reach(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(0.1, seed=seed)  # whose mean is not 0.1 in the last bit
    assert "cost" in figures(compare(load_runs([tmp_path / "sweep"])))


def browse(document: str, script: str, tmp_path: Path) -> Any:
    """Open a page as a phone of 375 pixels would, run a script in it and give back what it returns."""
    file = tmp_path / "phone.html"
    frame = f'<iframe width="375" height="700" style="border:0" srcdoc="{escape(document, quote=True)}"></iframe>'
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
          figures: [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width),
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

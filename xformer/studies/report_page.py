"""A comparison as one self-contained HTML page, without network access or external scripts."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.figures import figure_svg
from xformer.studies.table import (
    findings,
    table_cells,
    table_headers,
    table_notes,
    table_records,
    table_warnings,
    three_digits,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTIONS = {
    "curves": "Learning curves: the monitored metric on the validation part. Mean over seeds, 95 % interval shaded.",
    "cost": "Quality against cost. Mean over seeds with its 95 % interval; the dashed line is the Pareto front.",
    "tuning": "Tuning: the validation metric of the trials by each tuned setting. Mean over tuning seeds, 95 % "
    "interval shaded; the circle marks the setting that was chosen, which the final runs have.",
    "length": "The metric by the length it was measured at. Mean over seeds, 95 % interval shaded.",
}

_NO_CURVES = (
    "No learning curves: none of these runs has a metrics.csv here. A committed table holds only final values; "
    "curves come with run directories (experiment=STUDY makes a study's) or with --wandb."
)

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 92rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
.scroll { overflow-x: auto; border: 1px solid #ddd; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
tbody tr:last-child > * { border-bottom: 0; }
th.text, td.text { text-align: left; }
thead th { background: #f6f6f6; padding: 0; vertical-align: bottom; }
thead button { all: unset; display: block; width: 100%; box-sizing: border-box; padding: .5rem .7rem; cursor: pointer;
  font-weight: 600; }
thead button:focus-visible, .scroll:focus-visible { outline: 2px solid #0072b2; outline-offset: -2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.better { color: #00663f; font-weight: 600; }
.worse { color: #a33a00; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 40rem)); gap: 1.5rem;
  margin-top: 2rem; }
figure { margin: 0; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption, .notes { color: #555; font-size: .875rem; }
.warnings { background: #fff8e6; border-left: 4px solid #e69f00; padding: .5rem 1rem; border-radius: .2rem; }
@media print { .scroll { overflow: visible; } }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => {
  const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[head.cellIndex].dataset.value;
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
    : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
});
"""


def report_page(comparison: Comparison, title: str, drawn: Mapping[str, "Figure"]) -> str:
    """The HTML page of a comparison: findings, table, warnings, figures, settings that differ, and runs."""
    sentences = findings(comparison) or [
        f"{row.name}: {row.mean:.4f} {comparison.metric.name}" for row in comparison.rows
    ]
    warnings = table_warnings(comparison)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _list(sentences),
        "<h2>Comparison</h2>",
        _scrolled("Comparison", _table(comparison)),
        '<div class="notes">' + _list(table_notes(comparison)) + "</div>",
        f'<section class="warnings" aria-label="Warnings">{_list(warnings)}</section>' if warnings else "",
        '<div class="figures">'
        + "".join(_figure(name, figure_svg(figure, name)) for name, figure in drawn.items())
        + "</div>",
        "" if "curves" in drawn else f'<p class="notes">{escape(_NO_CURVES)}</p>',
        "<h2>What differs</h2>",
        '<div class="scroll" role="region" aria-label="Settings" tabindex="0">'
        + _configurations(comparison)
        + "</div>",
        "<h2>Runs</h2>",
        f'<div class="scroll" role="region" aria-label="Runs" tabindex="0">{_runs(comparison)}</div>',
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _scrolled(name: str, table: str) -> str:
    """A wide table moves in a frame of its own, by keyboard too; the page does not."""
    return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{table}</div>'


def _table(comparison: Comparison) -> str:
    titles, names = table_headers(comparison), list(comparison.differ.named) or ["configuration"]
    texts = {*range(len(names)), titles.index("verdict")}
    rows = []
    for row, record in zip(comparison.rows, table_records(comparison), strict=True):
        columns = ("seeds", "mean", "low", "difference", "p_holm", "detectable_difference", "verdict")
        budget = ("parameters", "training_flops", "tokens", "wall_seconds", "peak_memory_bytes")
        values = [record[key] for key in (*names, *columns, *budget)]
        rows.append(_row(row, values, table_cells(comparison, row), texts))
    return _html_table(titles, rows, texts)


def _row(row: ComparisonRow, values: list[object], shown: list[str], texts: set[int]) -> str:
    mark = {"better": " better", "worse": " worse"}.get(row.verdict, "")
    found = []
    for index, (value, text) in enumerate(zip(values, shown, strict=True)):
        kind = f' class="text{mark if text.startswith(row.verdict) else ""}"' if index in texts else ""
        plain = escape("" if value is None else str(value), quote=True)
        tag = 'th scope="row"' if index == 0 else "td"
        found.append(f'<{tag}{kind} data-value="{plain}">{escape(text)}</{tag.split()[0]}>')
    return f"<tr>{''.join(found)}</tr>"


def _html_table(titles: list[str], rows: list[str], texts: set[int]) -> str:
    head = "".join(
        f'<th scope="col"{" class=text" if index in texts else ""}><button>{escape(title)}</button></th>'
        for index, title in enumerate(titles)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _plain_table(titles: list[str], rows: list[list[str]]) -> str:
    made = [
        "<tr>"
        + "".join(f'<td class="text" data-value="{escape(c, quote=True)}">{escape(c)}</td>' for c in row)
        + "</tr>"
        for row in rows
    ]
    return _html_table(titles, made, {*range(len(titles))})


def _configurations(comparison: Comparison) -> str:
    """Every key whose values differ, what choices bring with them too."""
    groups = [row.group for row in comparison.rows]
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    differing = [key for key in keys if len({group.get(key) for group in groups}) > 1]
    return _plain_table(
        ["setting", *(row.name for row in comparison.rows)],
        [[key, *(group.get(key) for group in groups)] for key in differing],
    )


def _runs(comparison: Comparison) -> str:
    rows = [
        [row.name, str(run.seed), three_digits(row.values[run.seed]), str(run.summary.data_fingerprint), run.name]
        for row in comparison.rows for run in row.group.runs
    ]  # fmt: skip
    return _plain_table(["group", "seed", comparison.metric.name, "data", "run"], rows)


def _figure(name: str, drawn: str) -> str:
    caption = escape(_CAPTIONS[name])
    accessible = drawn.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<figure>{accessible}<figcaption>{caption}</figcaption></figure>"


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"

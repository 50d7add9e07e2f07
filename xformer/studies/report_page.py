"""Comparisons as one self-contained HTML page, without network access or external scripts."""

from collections.abc import Sequence
from html import escape

from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.experiments import experiment_label
from xformer.studies.figure_style import NARROW, WIDE
from xformer.studies.figure_svg import page_svg
from xformer.studies.figures import Curves, figures, learning_curves
from xformer.studies.page_table import Cell, html_table, plain_table
from xformer.studies.size_sweep import scaling_sentences
from xformer.studies.statistics import Interval
from xformer.studies.table import (
    exactly_three_digits,
    findings,
    table_cells,
    table_headers,
    table_notes,
    table_warnings,
    three_digits,
)
from xformer.studies.trivial_lines import trivial_baselines

_CAPTIONS = {
    "curves": "Learning curves: the monitored metric on the validation part. Mean over seeds, 95 % interval shaded.",
    "cost": "Quality against cost. Mean over seeds with its 95 % interval; the dashed line is the Pareto front.",
    "tuning": "Tuning: the validation metric of the trials by each tuned setting. Mean over tuning seeds, 95 % "
    "interval shaded; the circle marks the setting that was chosen, which the final runs have.",
    "length": "The metric by the length it was measured at. Mean over seeds, 95 % interval shaded.",
    "scaling": "By size: power laws with an offset, and the difference of the curves with its 95 % band, each point by "
    "itself; beyond the largest size measured dotted and paler, and no further than the text says.",
}
_FROM_TEST = " The lines of trivial baselines are their values on the test part."

_NO_CURVES = (
    "No learning curves: none of these runs has a metrics.csv here. A committed table holds only final values; "
    "curves come with run directories (experiment=STUDY makes a study's) or with --wandb."
)

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 118rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
ul, p { max-width: 75rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; vertical-align: top; white-space: nowrap; font-weight: inherit;
  border-bottom: 1px solid #e8e8e8; }
th.text, td.text { text-align: left; white-space: normal; min-width: 3.5rem; }
td small { display: block; color: #555; white-space: nowrap; }
[title] { cursor: help; }
thead th { background: #f6f6f6; padding: 0; vertical-align: bottom; white-space: normal; }
thead button { all: unset; display: block; width: 100%; box-sizing: border-box; padding: .5rem .6rem; cursor: pointer;
  font-weight: 600; }
thead button:focus-visible, summary:focus-visible { outline: 2px solid #0072b2; outline-offset: -2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.better { color: #00663f; font-weight: 600; }
.worse { color: #a33a00; font-weight: 600; }
.figures { display: grid; grid-template-columns: minmax(0, 1fr); gap: 2rem; margin-top: 2rem; }
figure { margin: 0; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
figure svg .group use, figure svg .seed use { cursor: help; }
figure svg .seed, .narrow { display: none; }
figure:has(.seeds:checked) svg .seed { display: inline; }
figcaption, .notes, footer { color: #555; font-size: .875rem; }
.warnings { background: #fff8e6; border-left: 4px solid #e69f00; padding: .5rem 1rem; border-radius: .2rem; }
details { margin-top: 2rem; }
summary { cursor: pointer; font-size: 1.1rem; font-weight: 600; }
footer { margin-top: 3rem; border-top: 1px solid #e8e8e8; padding-top: .5rem; }
footer p { margin: .2rem 0; max-width: none; }
@media (min-width: 100rem) { .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 56rem) {
  .wide { display: none; }
  .narrow { display: block; }
  table, tbody, tr, td, th { display: block; }
  thead tr { display: flex; flex-wrap: wrap; gap: .3rem; margin-bottom: .5rem; }
  thead th { border: 1px solid #ddd; border-radius: .3rem; }
  thead button { padding: .2rem .5rem; width: auto; }
  tbody tr { border: 1px solid #ddd; border-radius: .4rem; margin-bottom: .6rem; padding: .3rem .2rem; }
  tbody td, tbody th, tbody td.text, tbody th.text { display: flex; justify-content: space-between; gap: 1rem;
    border: 0; padding: .15rem .5rem; text-align: right; white-space: normal; }
  tbody td::before, tbody th::before { content: attr(data-label); color: #555; font-weight: 400; text-align: left; }
  tbody tr > .text:first-child { font-weight: 600; }
}
@media print { details > * { display: block; } }
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


def report_page(
    comparisons: Sequence[Comparison],
    title: str,
    origin: Sequence[str] = (),
    lead: str = "",
    curves: Sequence[Curves] | None = None,
) -> str:
    """The HTML page of comparisons: for each its findings, tables, warnings, figures, settings that differ, and runs.

    Args:
        comparisons: each is a section where there are several.
        title: the page's.
        origin: the lines of its foot, as `page_origin` gives them.
        lead: a sentence below the title, such as a study's question.
        curves: of each comparison, as `learning_curves` reads them; None to read them here.
    """
    curves = [learning_curves(comparison) for comparison in comparisons] if curves is None else curves
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(lead)}</p>" if lead else ""]
    if len(comparisons) == 1:
        parts.append(_section(comparisons[0], curves[0], 0, "h2"))
    else:
        labels = [experiment_label(each.experiment) for each in comparisons]
        links = "".join(f'<li><a href="#experiment-{i}">{escape(label)}</a></li>' for i, label in enumerate(labels))
        parts.append(f"<nav><ul>{links}</ul></nav>")
        parts += [
            f'<section id="experiment-{i}"><h2>{escape(label)}</h2>\n{_section(each, curves[i], i, "h3")}</section>'
            for i, (label, each) in enumerate(zip(labels, comparisons, strict=True))
        ]
    parts.append(f"<footer>{''.join(f'<p>{escape(line)}</p>' for line in origin)}</footer>" if origin else "")
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(comparison: Comparison, curves: Curves, number: int, heading: str) -> str:
    sentences = [*findings(comparison), *scaling_sentences(comparison)] or [
        f"{row.name}: {three_digits(row.mean)} {comparison.metric.name}" for row in comparison.rows
    ]
    warnings = table_warnings(comparison)
    drawn = _figures(comparison, curves, number)
    parts = [
        _list(sentences),
        f"<{heading}>Quality</{heading}>",
        _quality(comparison),
        '<div class="notes">' + _list(table_notes(comparison)) + "</div>",
        f'<section class="warnings" aria-label="Warnings">{_list(warnings)}</section>' if warnings else "",
        f'<div class="figures">{"".join(drawn.values())}</div>',
        "" if "curves" in drawn else f'<p class="notes">{escape(_NO_CURVES)}</p>',
        f"<{heading}>Budget</{heading}>",
        _budget(comparison),
        f"<{heading}>What differs</{heading}>",
        _configurations(comparison),
        f"<details><summary>Runs</summary>{_runs(comparison)}</details>",
    ]
    return "\n".join(part for part in parts if part)


def _names(comparison: Comparison, row: ComparisonRow) -> list[Cell]:
    keys = comparison.differ.named
    return [Cell(row.group.get(key), text=True) for key in keys] or [Cell("all runs", text=True)]


def _quality(comparison: Comparison) -> str:
    titles = [*(comparison.differ.named or ["configuration"]), "seeds", comparison.metric.name]
    titles += [f"difference to {comparison.baseline}", "p (Holm)", "detectable", "verdict"]
    rows = []
    for row in comparison.rows:
        apart, test, shown = row.difference, row.test, table_cells(comparison, row)
        verdict = shown[table_headers(comparison).index("verdict")]
        rows.append([
            *_names(comparison, row),
            Cell(str(len(row.values)), len(row.values)),
            _number(row.mean, row.interval, "one seed"),
            _number(apart.mean, row.reach, "in every seed", "+") if apart else Cell("-", ""),
            Cell("-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}", _or_empty(row.p),
                 hover="" if row.p is None else repr(row.p)),
            _number(test.smallest, None, "") if test and test.smallest is not None else Cell("-", ""),
            Cell(verdict, text=True, mark=row.verdict if row.verdict in ("better", "worse") else ""),
        ])  # fmt: skip
    return html_table(titles, rows)


def _budget(comparison: Comparison) -> str:
    headers = table_headers(comparison)
    start = headers.index("verdict") + 1
    values = [
        [getattr(row.budget, name) for name in ("parameters", "flops", "tokens", "seconds", "memory")]
        for row in comparison.rows
    ]
    rows = [
        [
            *_names(comparison, row),
            *(
                Cell(text, _or_empty(value), hover="" if value is None else f"{value:,.15g}")
                for text, value in zip(table_cells(comparison, row)[start:], known, strict=True)
            ),
        ]
        for row, known in zip(comparison.rows, values, strict=True)
    ]
    return html_table([*(comparison.differ.named or ["configuration"]), *headers[start:]], rows)


def _number(value: float, between: Interval | None, without: str, sign: str = "") -> Cell:
    """A number with three digits, its interval below it, and all digits on hover."""
    below = f"[{_signed(between.low, sign)}, {_signed(between.high, sign)}]" if between else without
    hover = f"{value!r}, {100 * between.level:.4g} % [{between.low!r}, {between.high!r}]" if between else repr(value)
    return Cell(_signed(value, sign), value, below=below, hover=hover)


def _signed(value: float, sign: str) -> str:
    return f"{'+' if sign and value > 0 else ''}{exactly_three_digits(value)}"


def _or_empty(value: float | int | None) -> float | int | str:
    return "" if value is None else value


def _configurations(comparison: Comparison) -> str:
    """Every key whose values differ, what choices bring with them too, with the groups of each value."""
    groups = [row.group for row in comparison.rows]
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    rows = []
    for key in keys:
        values: dict[str, list[str]] = {}
        for row in comparison.rows:
            values.setdefault(row.group.get(key), []).append(row.name)
        if len(values) > 1:
            rows += [[key, value, ", ".join(names)] for value, names in values.items()]
    return plain_table(["setting", "value", "of"], rows)


def _runs(comparison: Comparison) -> str:
    rows = [
        [Cell(row.name, text=True), Cell(str(run.seed), _or_empty(run.seed)), _number(row.values[run.seed], None, ""),
         Cell(str(run.summary.data_fingerprint), text=True), Cell(run.name, text=True)]
        for row in comparison.rows for run in row.group.runs
    ]  # fmt: skip
    return html_table(["group", "seed", comparison.metric.name, "data", "run"], rows)


def _figures(comparison: Comparison, curves: Curves, number: int) -> dict[str, str]:
    """Each figure in two widths, of which the window's shows one."""
    found: dict[str, str] = {}
    styles = {"wide": WIDE, "narrow": NARROW}
    drawn = {width: figures(comparison, style, seeds=True, curves=curves) for width, style in styles.items()}
    trivial = trivial_baselines(comparison.rows, comparison.metric.name)
    for name in drawn["wide"]:
        caption = _CAPTIONS[name] + (_FROM_TEST if trivial and name == "curves" else "")
        pictures = "".join(
            f'<div class="{width}">{page_svg(each[name], f"{name}-{number}-{width}", caption)}</div>'
            for width, each in drawn.items()
        )
        seeds = '<label><input type="checkbox" class="seeds"> show each seed</label>'
        found[name] = f"<figure>{pictures}<figcaption>{escape(caption)} {seeds}</figcaption></figure>"
    return found


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"

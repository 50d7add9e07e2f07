"""The gallery: one page over all studies, made from their committed tables."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from xformer.errors import ConfigError
from xformer.studies.budget import format_quantity
from xformer.studies.committed_runs import RUNS, SHARED
from xformer.studies.comparison import Comparison, ComparisonRow, compare
from xformer.studies.figure_style import GALLERY
from xformer.studies.figure_svg import figure_svg
from xformer.studies.figures import length_figure_of, scaling_figure_of
from xformer.studies.means_figure import means_figure
from xformer.studies.mixed_conditions import machine_name
from xformer.studies.size_sweep import scaling_sentences
from xformer.studies.study import Study, studies

PAGE = "index.md"
_HEAD = """# Studies

Each asks one question, with everything else equal: its verdict, its figure, what it cost, and the command that runs it
again. `xformer gallery` makes this page from the tables in `experiments/`, where the README of a study has all its
numbers and what they mean. How verdicts are reached: [compare and study](../comparing.md#verdicts).
"""


def write_gallery(folder: Path) -> list[Path]:
    """Write the page and a figure for each study that has a committed table.

    Returns:
        The files written.

    Raises:
        XformerError: a study's file or table is damaged, or the folder cannot be written.
    """
    found = [Study.of(name) for name in studies()]
    recorded = [study for study in found if study.table is not None]
    files = {folder / f"{study.name}.svg": study_figure(study) for study in recorded}
    files[folder / PAGE] = gallery_page(found)
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {folder} cannot be written: {error.strerror}; use another directory.") from error
    return list(files)


def gallery_page(found: Sequence[Study]) -> str:
    """The page in Markdown: studies with a table, then those that were not run yet."""
    parts = [_HEAD, *(_entry(study) for study in found if study.table is not None)]
    if missing := [study for study in found if study.table is None]:
        rows = [f"| `{study.name}` | {study.question} | {study.expected} |" for study in missing]
        parts.append(
            "## Without a table yet\n\nEach runs with `python train.py -m experiment=NAME`.\n\n"
            "| study | question | expected |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def study_figure(study: Study) -> str:
    """The figure of a study as SVG: by size, by length, or the means; with the hash of its table in a comment."""
    comparison = _comparison(study)
    figure = (
        scaling_figure_of(comparison, GALLERY)
        or length_figure_of(comparison, GALLERY)
        or means_figure(comparison, GALLERY)
    )
    comment = f"<!-- of the table {table_hash(study)} -->"
    return f'<?xml version="1.0" encoding="utf-8"?>\n{comment}\n{figure_svg(figure, study.name)}'


def table_hash(study: Study) -> str:
    """A hash of a study's committed table."""
    table = study.table or study.folder
    return hashlib.sha256(b"".join((table / name).read_bytes() for name in (RUNS, SHARED))).hexdigest()[:16]


def verdict_sentence(comparison: Comparison) -> str:
    """All verdicts in one sentence: `Better than position=sinusoidal in test/loss: t5; worse: rotary (3 seeds)`."""
    named = comparison.differ.named
    compared = [key for key in named if f" {key}=" in f" {comparison.baseline}"] or list(named)
    parts: dict[str, dict[str, list[str]]] = {}
    for row in comparison.rows:
        place = " ".join(f"{key}={row.group.get(key)}" for key in named if key not in compared)
        if row.verdict != "baseline":
            parts.setdefault(place, {}).setdefault(row.verdict, []).append(_short(row, compared))
    links = {"better": "than", "worse": "than", "no difference shown": "from"}
    clauses = []
    for place, verdicts in parts.items():
        order = [verdict for verdict in links if verdict in verdicts] + [v for v in verdicts if v not in links]
        phrases = []
        for index, verdict in enumerate(order):
            link = links.get(verdict, "to") if not verdict.startswith("no verdict") else "against"
            against = f" {link} {comparison.baseline} in {comparison.metric.name}" if not index else ""
            phrases.append(f"{verdict}{against}: {', '.join(verdicts[verdict])}")
        clauses.append((f"{place}: " if place else "") + "; ".join(phrases))
    counts = sorted({len(row.values) for row in comparison.rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = ". ".join(clauses) if clauses else f"No difference to test in {comparison.metric.name}"
    text = text if "" not in parts else f"{text[0].upper()}{text[1:]}"
    return f"{text} ({seeds} seeds)."


def _short(row: ComparisonRow, keys: Sequence[str]) -> str:
    """A group by the values of some settings; a number says whose it is."""
    values = {key: row.group.get(key) for key in keys}
    return " ".join(value if value[:1].isalpha() else f"{key}={value}" for key, value in values.items())


def _comparison(study: Study) -> Comparison:
    return compare(study.committed(), study.metric, study.baseline, study.plan)


def _entry(study: Study) -> str:
    comparison = _comparison(study)
    verdict = verdict_sentence(comparison)
    sentences = [verdict, *scaling_sentences(comparison)]
    return (
        f"## {study.name}\n\n{study.question}\n\n**{' '.join(sentences)}**\n\n"
        f"![{verdict}]({study.name}.svg)\n\n{_cost(study, comparison)}\n\n"
        f"```bash\npython train.py -m experiment={study.name}\n```\n"
    )


def _cost(study: Study, comparison: Comparison) -> str:
    """What its runs cost, and on which machine; then what its file expects."""
    runs = [run for row in comparison.rows for run in row.group.runs]
    seconds = [run.summary.wall_seconds for run in runs]
    known = [second for second in seconds if second is not None]
    minutes = f", {sum(known) / 60:.0f} minutes of wall time together" if len(known) == len(runs) else ""
    machines = "; ".join(dict.fromkeys(machine for run in runs if (machine := machine_name(run))))
    flops = sorted(row.budget.flops for row in comparison.rows if row.budget.flops)
    ends = list(dict.fromkeys(format_quantity("flops", value) for value in (flops[:1] + flops[-1:])))
    each = f"; {' to '.join(ends)} a run" if ends else ""
    where = f" ({machines})" if machines else ""
    return f"Cost: {len(runs)} runs{minutes}{where}{each}. Expected: {study.expected}."

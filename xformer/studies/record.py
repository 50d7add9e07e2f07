"""The folder of a study's results: `runs.csv`, `shared.yml`, figures, and a README with the findings."""

import re
from collections.abc import Sequence
from pathlib import Path

from xformer.core import console
from xformer.core.program import with_plugins
from xformer.errors import DataError
from xformer.runs.recorded_run import RecordedRun
from xformer.runs.summary import FILE as SUMMARY
from xformer.studies.committed_runs import RUNS, SHARED, row_name, write_table
from xformer.studies.comparison import compare
from xformer.studies.figures import figures, write_figures
from xformer.studies.output_formats import as_markdown
from xformer.studies.size_sweep import scaling_sentences
from xformer.studies.study import Study
from xformer.studies.table import findings
from xformer.studies.trials import tuning_of

_BEGIN, _END = "<!-- findings -->", "<!-- /findings -->"
_BLOCK = re.compile(f"{_BEGIN}.*{_END}", re.DOTALL)


def record_study(study: Study, runs: Sequence[RecordedRun], folder: Path | None = None) -> list[Path]:
    """Write a study's results into its folder, keeping the README's text around the findings.

    Returns:
        The files written.

    Raises:
        XformerError: a run does not belong to the study, the runs cannot be compared, or the README lacks the markers
            of the findings. Nothing is written then.
    """
    study.refuse_others(runs)
    runs, repeated = without_duplicates(runs)
    if tuning := tuning_of(runs):
        kept, superseded = tuning.without_superseded(run for run in runs if not run.summary.is_trial)
        names = {run.name for run in kept}
        runs = [run for run in runs if run.summary.is_trial or run.name in names]
        repeated += [f"{name} is left out: {reason}" for name, reason in superseded.items()]
    folder = folder or study.folder
    comparison = compare(runs, study.metric, study.baseline, study.plan)
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.exists() else _frame(study)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{readme} cannot be read ({error}); correct it or move it away.") from error
    if not _BLOCK.search(text):
        raise DataError(f"{readme} has no place for the findings; add the lines {_BEGIN} and {_END} to it.")
    pictures = figures(comparison)
    write_table(folder, runs)
    for sentence in repeated:
        console.info(sentence)
    drawn = write_figures(pictures, folder)
    shown = "\n".join(f"![{path.stem}]({path.name})" for path in drawn if path.suffix == ".svg")
    found = [*findings(comparison), *scaling_sentences(comparison)]
    sentences = "\n".join(f"- {sentence}" for sentence in found)
    table = "\n".join(line for line in as_markdown(comparison).splitlines() if line not in sentences.splitlines())
    block = f"{_BEGIN}\n{sentences}\n\n{table}\n\n{shown}\n{_END}"
    readme.write_text(_BLOCK.sub(lambda _: block, text), encoding="utf-8")
    return [folder / RUNS, folder / SHARED, readme, *drawn]


def without_duplicates(runs: Sequence[RecordedRun]) -> tuple[list[RecordedRun], list[str]]:
    """Keep the latest finished run of each cell, and a sentence for each run left out."""
    ordered = sorted(runs, key=lambda run: (run.summary.status == "finished", _ended(run)))
    kept = {row_name(run): run for run in ordered}
    pairs = [(run, kept[row_name(run)]) for run in runs]
    left_out = [(run, other) for run, other in pairs if run is not other]
    sentences = [f"{run.name} is left out: {other.name} is a run of the same cell." for run, other in left_out]
    return [run for run, other in pairs if run is other], sentences


def _ended(run: RecordedRun) -> int:
    """When the run's summary was written; 0 without a summary."""
    file = run.directory / SUMMARY if run.directory else None
    return file.stat().st_mtime_ns if file and file.exists() else 0


def _frame(study: Study) -> str:
    others = [f"{with_plugins(f'xformer {command}')} {study.name}" for command in ("compare", "reproduce")]
    commands = [study.command, *others]
    shell = "\n".join(commands)
    return (
        f"# {study.name}\n\n{study.question}\n\n{_BEGIN}{_END}\n\n"
        f"Expected time: {study.expected}. Run it, compare, check it against this table:\n\n```bash\n{shell}\n```\n"
    )

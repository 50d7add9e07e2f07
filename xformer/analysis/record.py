"""The folder beside a study's file: `runs.csv`, `shared.yml`, the figures, and a README with the findings."""

import re
from collections.abc import Sequence
from pathlib import Path

from xformer.analysis.committed import RUNS, SHARED, write_table
from xformer.analysis.comparison import compare
from xformer.analysis.figures import write
from xformer.analysis.formats import markdown
from xformer.analysis.load import Run
from xformer.analysis.study import Study
from xformer.analysis.table import findings

_BEGIN, _END = "<!-- findings -->", "<!-- /findings -->"


def record(study: Study, runs: Sequence[Run], folder: Path | None = None) -> list[Path]:
    """Write the folder; what a person wrote around the findings of its README stays.

    Returns:
        The files written.
    """
    folder = folder or study.folder
    write_table(folder, runs)
    comparison = compare(runs, study.metric, study.baseline)
    drawn = write(comparison, folder)
    pictures = "\n".join(f"![{path.stem}]({path.name})" for path in drawn if path.suffix == ".svg")
    said = "\n".join(f"- {sentence}" for sentence in findings(comparison))
    table = "\n".join(line for line in markdown(comparison).splitlines() if line not in said.splitlines())
    block = f"{_BEGIN}\n{said}\n\n{table}\n\n{pictures}\n{_END}"
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else _frame(study)
    text = re.sub(f"{_BEGIN}.*{_END}", lambda _: block, text, flags=re.DOTALL)
    readme.write_text(text, encoding="utf-8")
    return [folder / RUNS, folder / SHARED, readme, *drawn]


def _frame(study: Study) -> str:
    commands = [study.command, f"xformer compare {study.name}", f"xformer reproduce {study.name}"]
    shell = "\n".join(commands)
    return (
        f"# {study.name}\n\n{study.question}\n\n{_BEGIN}{_END}\n\n"
        f"Expected time: {study.expected}. Run it, compare, check it against this table:\n\n```bash\n{shell}\n```\n"
    )

"""Compare a study under changed settings: does its verdict hold at another size, length, batch or learning rate?"""

import argparse
from pathlib import Path


def main() -> None:
    """Print the verdicts by changed setting, and the commands for what was not run yet."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from xformer.studies.robustness import (
        as_json,
        commands,
        conditions,
        read_changes,
        verdict_rows,
        verdict_sentences,
    )
    from xformer.studies.study import Study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument(
        "changes", nargs="*", default=[], metavar="KEY=A,B", help="a setting and its other values, one at a time"
    )
    parser.add_argument(
        "--runs", type=Path, action="append", metavar="DIR",
        help="read the runs with changed settings from here (default: outputs/robustness/STUDY)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    arguments = parser.parse_args()
    study = Study.of(arguments.study)
    changes = read_changes(study, arguments.changes)
    found = conditions(study, changes, arguments.runs or ())
    if arguments.format == "json":
        print(as_json(found), end="")
        return
    titles, *rows = verdict_rows(found)
    further = [*verdict_sentences(found), _REMARK] if titles[1:] else []
    missing = commands(study, changes, found)
    if arguments.format == "markdown":
        lines = [titles, ["---"] * len(titles), *rows]
        print("\n".join("| " + " | ".join(line) + " |" for line in lines))
        print("\n" + "\n".join(f"- {sentence}" for sentence in further))
    else:
        table = Table()
        for title in titles:
            table.add_column(escape(title), overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        console = Console()
        console.print(table)
        for sentence in further:
            console.print(escape(sentence), highlight=False)
    if missing:
        print("What was not run yet:\n" + "\n".join(missing))


_REMARK = (
    "Each setting is compared apart, with its own correction for several groups: with many settings some verdict "
    "differs by chance, and few seeds may show a difference in one setting and not in the next where both are the same."
)

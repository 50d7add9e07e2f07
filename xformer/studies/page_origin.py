"""Where a page or a table comes from: the command, the date, this code's commit, and those of the runs."""

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import xformer
from xformer.runs.git_state import git_state
from xformer.studies.comparison import Comparison
from xformer.studies.mixed_conditions import machine_name


def page_origin(command: Sequence[str], comparisons: Sequence[Comparison], now: datetime | None = None) -> list[str]:
    """The lines at the foot of a page.

    Args:
        command: as typed, word by word.
        comparisons: what the page shows.
        now: the time of writing; None for the clock's.
    """
    state = git_state(Path(__file__).parent)
    changes = " with changes that are not committed" if state["dirty"] else ""
    commit = f", commit {state['commit'][:10]}{changes}" if state["commit"] else ""
    written = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    return [
        f"Written {written} by xformer {xformer.__version__}{commit}.",
        f"Command: {shlex.join(command)}",
        *runs_origin(comparisons),
    ]


def runs_origin(comparisons: Sequence[Comparison]) -> list[str]:
    """The commits, the versions of torch and the machines that the runs come from."""
    runs = [run for comparison in comparisons for row in comparison.rows for run in row.group.runs]
    commits = _distinct(str(run.summary.git["commit"])[:10] for run in runs if run.summary.git.get("commit"))
    versions = _distinct(str(run.summary.versions["torch"]) for run in runs if run.summary.versions.get("torch"))
    machines = _distinct(machine for run in runs if (machine := machine_name(run)))
    parts = [
        f"{len(runs)} run{'s' if len(runs) != 1 else ''}",
        f"of commit {', '.join(commits)}" if commits else "",
        f"torch {', '.join(versions)}" if versions else "",
        f"on {'; '.join(machines)}" if machines else "",
    ]
    return [f"Runs: {', '.join(part for part in parts if part)}."]


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))

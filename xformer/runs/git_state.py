"""The commit that is checked out, without loading torch."""

import subprocess
from pathlib import Path
from typing import TypedDict


class GitState(TypedDict):
    """The commit checked out, and whether tracked files differ from it; None where that is not known."""

    commit: str | None
    dirty: bool | None


def git_state(directory: Path) -> GitState:
    """The state of the repository `directory` is in; both None without git or without a repository. Never raises.

    `dirty` counts changed and staged files, not untracked ones: a run's own outputs are untracked.
    """
    commit = run_git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = run_git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def run_git(directory: Path, *arguments: str) -> str | None:
    """What git prints in a directory; None where it fails or is not there. Never raises."""
    # Without the optional locks, jobs that start together do not fight over the index.
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip()

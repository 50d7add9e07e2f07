"""The commit and whether files differ from it, with and without git."""

import subprocess
from pathlib import Path

import pytest

from xformer.runs.git_state import git_state


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", directory, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_state_names_the_commit_and_sees_changes(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "output").write_text("untracked files are not changes")
    assert git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path)["dirty"] is True


def test_git_state_without_repository_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"commit": None, "dirty": None}
    assert git_state(tmp_path) == nothing
    assert git_state(tmp_path / "missing") == nothing
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == nothing

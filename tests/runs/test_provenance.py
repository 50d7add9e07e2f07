import subprocess
from pathlib import Path

import pytest
import torch

from xformer.config.plugins import Plugin
from xformer.runs.provenance import git_state, hardware, package_versions, plugin_state


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


def test_a_plugin_has_the_commit_of_its_own_tree_alone(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    conf = tmp_path / "environment" / "own_plugin" / "conf"
    conf.mkdir(parents=True)
    (conf / "option.yaml").touch()
    plugin = Plugin("own_plugin", conf)
    assert plugin_state(plugin) == {"version": None, "commit": None, "dirty": None}  # the tree knows nothing of it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "two")
    assert plugin_state(plugin) == {"version": None, "commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}


def test_package_versions_are_those_imported() -> None:
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert versions["xformer"]
    assert versions["python"].startswith("3.")


def test_hardware_is_plausible() -> None:
    machine = hardware()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] is None or machine["memory_bytes"] > 2**28
    assert machine["torch_threads"] == torch.get_num_threads()
    assert machine["cpu"]

from pathlib import Path

import torch

from tests.runs.test_git_state import git
from xformer.config.plugins import Plugin
from xformer.runs.provenance import hardware, package_versions, plugin_state


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

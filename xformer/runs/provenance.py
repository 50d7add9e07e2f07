"""Provenance of a result: the commit, the package versions and the machine."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import torch

from xformer.config.plugins import Plugin
from xformer.core import devices

PACKAGES = {
    "xformer": "xformer-lab",
    "torch": "torch",
    "lightning": "lightning",
    "hydra-core": "hydra-core",
    "omegaconf": "omegaconf",
    "torchmetrics": "torchmetrics",
    "wandb": "wandb",
    "datasets": "datasets",
    "tokenizers": "tokenizers",
    "numpy": "numpy",
}


class GitState(TypedDict):
    """The commit checked out, and whether tracked files differ from it; None if unknown."""

    commit: str | None
    dirty: bool | None


class PluginState(GitState):
    """The version of an installed plugin and the commit of its tree; None if unknown."""

    version: str | None


class Hardware(TypedDict):
    """The machine as this process sees it; memory in bytes, None if unknown."""

    cpu: str
    cores: int
    memory_bytes: int | None
    platform: str
    torch_threads: int
    cuda: list[str]


def git_state(directory: Path) -> GitState:
    """The state of the repository that contains `directory`; None without git or a repository. Never raises.

    `dirty` counts changed and staged files, not untracked ones: a run's own outputs are untracked.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def plugin_state(plugin: Plugin) -> PluginState:
    """The version of a plugin and, if git tracks its files, the state of its tree. Never raises."""
    root = plugin.package.partition(".")[0]
    distributions = metadata.packages_distributions().get(root, [])
    version = metadata.version(distributions[0]) if distributions else None
    # An environment may lie inside a repository that does not track it.
    kept = _git(plugin.conf, "ls-files", "--error-unmatch", ".") is not None
    state: GitState = git_state(plugin.conf) if kept else {"commit": None, "dirty": None}
    return {"version": version, **state}


def _git(directory: Path, *arguments: str) -> str | None:
    # Without the optional locks, jobs that start together do not fight over the index.
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result may depend on, read without importing them."""
    versions = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            versions[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions | {"torch": str(torch.__version__)}  # the only place with the CUDA or CPU build


def hardware() -> Hardware:
    """The processor, the cores this process may use, the memory and the accelerators."""
    return {
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "platform": platform.platform(),
        "torch_threads": torch.get_num_threads(),
        "cuda": devices.device_names(),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    # os.cpu_count() counts the machine's cores; a batch system lends a job only some of them.
    lent = getattr(os, "sched_getaffinity", None)
    return len(lent(0)) if lent else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None

"""Where a result comes from: the commit, the package versions, the machine."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import torch

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
    """The commit checked out, and whether tracked files differ from it; None where that is not known."""

    commit: str | None
    dirty: bool | None


class Hardware(TypedDict):
    """The machine as this process sees it; memory in bytes, None where the system does not say."""

    cpu: str
    cores: int
    memory_bytes: int | None
    platform: str
    torch_threads: int
    cuda: list[str]


def git_state(directory: Path) -> GitState:
    """The state of the repository `directory` is in; both None without git or without a repository. Never raises.

    `dirty` counts changed and staged files, not untracked ones: a run's own outputs are untracked.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(directory: Path, *arguments: str) -> str | None:
    # Without the optional locks, jobs that start together do not fight over the index.
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages a result may depend on, without importing them."""
    versions = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            versions[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions | {"torch": str(torch.__version__)}  # which alone tells the CUDA or CPU build


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

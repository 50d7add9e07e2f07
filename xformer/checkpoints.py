"""Which checkpoint a run continues from."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from xformer.errors import RunError

log = logging.getLogger(__name__)
FOLDER = "checkpoints"


def found(directory: Path) -> list[Path]:
    """Every checkpoint of a run directory, those that SLURM's requeue leaves included, newest first."""
    files = [*(directory / FOLDER).glob("*.ckpt"), *directory.glob("hpc_ckpt_*.ckpt")]
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def readable(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The checkpoints that can be read, newest first, with their content; the log tells of a damaged one."""
    for file in found(directory):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            log.warning("%s cannot be read (%s); an older checkpoint is tried", file, str(error).splitlines()[0])
            continue
        yield file, content


def newest_readable(directory: Path) -> Path:
    """The newest checkpoint that can be read.

    Raises:
        RunError: there is none, so that `resume=true` would train from scratch.
    """
    for file, _ in readable(directory):
        return file
    raise RunError(
        f"resume=true found no readable checkpoint in hydra.run.dir={directory}; give the directory of the run to "
        "continue, or leave resume out to start one."
    )


def refuse_to_overwrite(directory: Path) -> None:
    """Keep a run that is already there.

    Raises:
        RunError: the directory holds checkpoints.
    """
    if found(directory):
        raise RunError(
            f"hydra.run.dir={directory} holds the checkpoints of an earlier run; resume=true continues it, and another "
            "hydra.run.dir leaves it alone."
        )

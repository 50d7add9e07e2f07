"""Warm start: weights copied from another run, to measure what a change of the model costs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from xformer.config.identity import short_name
from xformer.errors import ConfigError
from xformer.runs.open_run import best_weights, finished_summary
from xformer.runs.recorded_run import read_run
from xformer.tasks.base import Task


@dataclass(frozen=True)
class WarmStart:
    """The result of a warm start: what was copied and what was not.

    Attributes:
        run: the directory of the other run.
        source: a short name of the other run's configuration, the same for all its seeds.
        loaded: the number of parameters and buffers loaded.
        fresh: those of this model only, which keep their initial values.
        left: those of the other model only, which are not loaded.
    """

    run: str
    source: str
    loaded: int
    fresh: list[str]
    left: list[str]

    def __str__(self) -> str:
        parts = [("not there, so with initial values", self.fresh), ("not taken", self.left)]
        skipped = "".join(f"; {what}: {_brief(names)}" for what, names in parts if names)
        return f"Started from {self.run}: {self.loaded} tensors taken{skipped}."


def load_warm_start(task: Task, directory: Path) -> WarmStart:
    """Copy all parameters and buffers of another run whose names and shapes match the model's.

    The weights are those of the other run's best step. Only tensors are read from its checkpoint.

    Args:
        task: the model, initialised.
        directory: the directory of the other run.

    Raises:
        DataError: the directory has no finished run, or no readable checkpoint.
        ConfigError: no parameter has the same name and shape.
    """
    _, theirs = best_weights(directory, finished_summary(directory))
    ours = task.state_dict(keep_vars=True)
    shared = [name for name, tensor in ours.items() if name in theirs and theirs[name].shape == tensor.shape]
    if not any(isinstance(ours[name], nn.Parameter) for name in shared):
        raise ConfigError(
            f"init_from={directory}: no parameter of that run has the name and the shape of one of this model's; use "
            "a run of the same size."
        )
    with torch.no_grad():
        for name in shared:
            ours[name].copy_(theirs[name])
    fresh = [name for name in ours if name not in shared]
    left = [name for name in theirs if name not in shared]
    return WarmStart(str(directory), short_name(read_run(directory).settings), len(shared), fresh, left)


def _brief(names: Iterable[str]) -> str:
    """Names for display, in which equal parameters of several layers appear once."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))

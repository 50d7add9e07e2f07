"""Run train.py's jobs with a compiler that only counts, and print what it was asked for.

A process of its own, because what checks the shapes in tests cannot be compiled. Usage: counting.py DIRECTORY CASE...,
a case being overrides with `;` between; each prints a line of JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from torch._dynamo.utils import counters

from xformer.config.validate import CONF
from xformer.runs.job import Job, choices
from xformer.tasks.base import Task
from xformer.training.run import run

training = False
"""Whether a training step is under way."""


def main(directory: Path, cases: list[str]) -> None:
    real_compile, real_step = torch.compile, Task.training_step
    asked: list[bool] = []
    losses: list[float] = []
    lengths: set[int] = set()

    def backend(graph: torch.fx.GraphModule, inputs: list[Any], **_: Any) -> Any:
        asked.append(training)
        return graph.forward

    def training_step(self: Task, batch: Any, index: int) -> torch.Tensor:
        global training
        training = True
        loss = real_step(self, batch, index)
        training = False
        lengths.add(batch[0].shape[1])
        losses.append(loss.item())
        return loss

    torch.compile = lambda step, **_: real_compile(step, backend=backend)  # type: ignore[assignment]
    Task.training_step = training_step  # type: ignore[method-assign]
    for number, case in enumerate(cases):
        torch._dynamo.reset()
        counters.clear()
        for seen in (asked, losses, lengths):
            seen.clear()
        run(job(directory / str(number), case.split(";")))
        breaks = {reason.split("\n")[0]: count for reason, count in counters["graph_break"].items()}
        print(
            json.dumps(
                {
                    "graphs": len(asked),
                    "elsewhere": asked.count(False),
                    "breaks": breaks,
                    "lengths": len(lengths),
                    "losses": losses,
                }
            )
        )


def job(directory: Path, overrides: list[str]) -> Job:
    directory = next((Path(o.partition("=")[2]) for o in overrides if o.startswith("hydra.run.dir=")), directory)
    directory.mkdir(parents=True, exist_ok=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*overrides, f"hydra.runtime.output_dir={directory}"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    chosen = choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    OmegaConf.set_struct(config, True)
    made = Job(config, directory, chosen, overrides)
    made.apply_study_settings()
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""The committed sweep of W&B, as its agent would start it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from tests.studies.service import of_file, offline_file
from xformer.config import compatibility
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.runs.recorded_run import read_run
from xformer.studies.wandb_runs import _run

ROOT = Path(__file__).parents[1]
SWEEP = yaml.safe_load((ROOT / "launch" / "wandb_sweep.yaml").read_text())


def cells() -> list[dict[str, Any]]:
    values = {key: parameter["values"] for key, parameter in SWEEP["parameters"].items()}
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def command(cell: dict[str, Any]) -> list[str]:
    """The words that the agent makes of the file, with W&B's own functions."""
    words = create_sweep_command(SWEEP["command"])
    arguments = create_sweep_command_args({"args": {key: {"value": value} for key, value in cell.items()}})
    filled: list[str] = []
    for word in words:
        filled += arguments["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    return filled


def test_every_cell_is_a_run_of_train(compose_job: ComposeJob) -> None:
    assert (ROOT / SWEEP["program"]).is_file()
    seen = set()
    for cell in cells()[::3]:  # of one seed
        words = command(cell)
        assert words[:3] == ["${env}", "${interpreter}", "${program}"]
        overrides = words[3:]
        job = compose_job(*overrides)
        validate(job.config)
        compatibility.check_compatibility(job.config, job.choices)
        Plan.of(job.config)
        assert SWEEP["metric"]["name"] == job.config.monitor.name
        assert SWEEP["metric"]["goal"] == f"{job.config.monitor.mode}imize"
        seen.add((job.choices["attention"], job.config.optimizer.lr, job.config.seed))
        assert (job.choices["logger"], job.choices["data"]) == ("wandb", "listops")
    assert 3 * len(seen) == len(cells())


@pytest.mark.slow
def test_a_run_of_the_sweep_keeps_its_configuration(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B puts the parameter `attention` where the configuration of the attention would stand."""
    cell, directory = cells()[-1], tmp_path / "run"
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **{key: {"value": v} for key, v in cell.items()}}))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    typed = [f"{key}={value}" for key, value in cell.items()]
    small = [*SMALL, *SMALL_LISTOPS, "logger=wandb", f"hydra.run.dir={directory}", f"cache={cache}"]
    agent = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "abc", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    words = [sys.executable, str(ROOT / SWEEP["program"]), *typed, *small]
    subprocess.run(words, env={**os.environ, **agent}, check=True, capture_output=True, timeout=300)
    remote = of_file("me", offline_file(directory))
    assert remote.config["attention"] == cell["attention"] == "local"
    there, here = _run("/".join(remote.path[:2]), remote), read_run(directory)
    assert (there.settings, there.summary) == (here.settings, here.summary)
    assert there.config["attention"]["_target_"] == "xformer.attention.local.Local"
    assert there.summary.overrides[: len(typed)] == typed

"""Repeating a run from its logged, resolved configuration instead of a command line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xformer.config.groups import CONF
from xformer.errors import ConfigError
from xformer.runs.job import Job
from xformer.runs.open_run import check_targets

RERUN_FILE = "rerun.json"


def write_rerun(
    directory: Path,
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    typed: Sequence[str],
    source: str | None,
    overrides: Sequence[str] = (),
) -> None:
    """Write `rerun.json`: the job to run in `directory/run`.

    Args:
        directory: the directory of `rerun.json`.
        config: a resolved configuration.
        choices: group to option.
        typed: the overrides that made the configuration, for the record.
        source: the run directory in the configuration; None if there is none.
        overrides: `key=value`, which replace values of the configuration.
    """
    text = json.dumps({"config": config, "choices": choices, "typed": typed, "overrides": overrides})
    if source:
        text = text.replace(json.dumps(source)[1:-1], json.dumps(str((directory / "run").resolve()))[1:-1])
    (directory / RERUN_FILE).write_text(text, encoding="utf-8")


def read_rerun(directory: Path) -> Job:
    """Read the job that `write_rerun` wrote.

    The run is stored in `directory/run`, logs only to the table there, and uses this machine's data cache.

    Raises:
        ConfigError: there is no `rerun.json`, or its configuration uses a class that is not an option here.
    """
    if not (directory / RERUN_FILE).is_file():
        raise ConfigError(f"{directory / RERUN_FILE} does not exist; xformer reproduce --wandb writes it.")
    content = json.loads((directory / RERUN_FILE).read_text(encoding="utf-8"))
    saved = {
        "cache": OmegaConf.load(CONF / "train.yaml").cache,
        "threads": "auto",
        "resume": False,
        "skip_finished": True,
    }
    # Resolve first, so that the check sees the values that would be instantiated.
    merged = OmegaConf.merge(content["config"], saved, OmegaConf.from_dotlist(content["overrides"]))
    config = OmegaConf.create(OmegaConf.to_container(merged, resolve=True))
    assert isinstance(config, DictConfig)
    config.logger = {}  # which merging could not empty
    check_targets(config, str(directory / RERUN_FILE))
    OmegaConf.set_struct(config, True)
    run_directory = (directory / "run").resolve()
    run_directory.mkdir(exist_ok=True)
    return Job(config, run_directory, content["choices"], content["typed"])

"""A run again, from the resolved configuration that it was logged with instead of a command line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xformer.config.groups import CONF
from xformer.errors import ConfigError
from xformer.runs.finished import refuse_foreign
from xformer.runs.job import Job

ASKED = "asked.json"


def write_asked(
    directory: Path,
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    typed: Sequence[str],
    source: str | None,
    overrides: Sequence[str] = (),
) -> None:
    """Say what is to be run in `directory/run`.

    Args:
        directory: where `asked.json` is written.
        config: a resolved configuration.
        choices: group to option.
        typed: the overrides that made the configuration, for the record.
        source: the directory that the configuration names as its own; None where it names none.
        overrides: values that win over the configuration's, `key=value`.
    """
    text = json.dumps({"config": config, "choices": choices, "typed": typed, "overrides": overrides})
    if source:
        text = text.replace(json.dumps(source)[1:-1], json.dumps(str((directory / "run").resolve()))[1:-1])
    (directory / ASKED).write_text(text, encoding="utf-8")


def asked(directory: Path) -> Job:
    """The job that `write_asked` described.

    It stores in `directory/run`, logs into the table there alone, and takes data from this machine's cache.

    Raises:
        ConfigError: nothing is described there, or the configuration would build what is no option here.
    """
    if not (directory / ASKED).is_file():
        raise ConfigError(f"{directory / ASKED} does not exist; xformer reproduce --wandb writes it.")
    content = json.loads((directory / ASKED).read_text(encoding="utf-8"))
    own = {
        "cache": OmegaConf.load(CONF / "train.yaml").cache,
        "threads": "auto",
        "resume": False,
        "skip_finished": True,
    }
    # Resolved here and now: what a resolver makes of a text must be seen before it is instantiated.
    merged = OmegaConf.merge(content["config"], own, OmegaConf.from_dotlist(content["overrides"]))
    config = OmegaConf.create(OmegaConf.to_container(merged, resolve=True))
    assert isinstance(config, DictConfig)
    config.logger = {}  # which merging could not empty
    refuse_foreign(config, str(directory / ASKED))
    OmegaConf.set_struct(config, True)
    own_directory = (directory / "run").resolve()
    own_directory.mkdir(exist_ok=True)
    return Job(config, own_directory, content["choices"], content["typed"])

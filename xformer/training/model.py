"""A model from the options of a command line, without a run: what a notebook builds."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from xformer.config import compatibility
from xformer.config.plan import Plan
from xformer.config.validate import CONF, explain_error, explain_missing_choice, is_of_hydra, validate
from xformer.errors import ConfigError
from xformer.runs.job import Job, choices
from xformer.tasks.base import Task
from xformer.training.matching import match_size


def build_model(options: str | Sequence[str] = ()) -> Task:
    """The model that `python train.py OPTIONS` begins to train, with the same initial values, in evaluation mode.

    It is the task, a LightningModule: `forward` gives logits, `step(batch)` the loss, and `model` is the architecture
    alone, from tokens to hidden states. Its data are prepared, as they decide the vocabulary and the longest sequence.

    Args:
        options: one or several, as on the command line: `["attention=linformer", "size=tiny"]`.

    Raises:
        ConfigError: an option, a key or a value that is not valid.
        IncompatibleError: choices that do not go together.
        DataError: the data cannot be read.
    """
    job = _composed([options] if isinstance(options, str) else options)
    validate(job.config)
    compatibility.check_compatibility(job.config, job.choices)
    plan = Plan.of(job.config)
    plan.load_data()
    if job.config.get("match") is not None:
        plan, _ = match_size(job.config, plan)
    return plan.build_task().eval()


def _composed(options: Sequence[str]) -> Job:
    """The job that the command line would be, which writes nothing."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=list(options), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_error(error)) from error
    except (ValueError, TypeError, AssertionError) as error:
        if not is_of_hydra(error):
            raise
        raise ConfigError(
            explain_missing_choice(options) or f"{' '.join(options)} cannot be composed: {error}."
        ) from error
    chosen = choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    OmegaConf.set_struct(config, True)
    job = Job(config, Path(), chosen, list(options))
    job.apply_study_settings()
    return job

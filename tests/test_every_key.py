"""Whatever stands at a key of a configuration is accepted and works, or is one sentence: never a traceback."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tests.conftest import SMALL
from xformer.config.compatibility import option_classes
from xformer.config.compose import explain_error
from xformer.config.groups import CONF, groups
from xformer.errors import XformerError
from xformer.runs.job import Job, choices
from xformer.runs.summary import Summary, read_summary
from xformer.training.run import _read, run
from xformer.training.trainer import build_trainer

WHOLE = {"experiment", "debug"}  # whose files are no part of a configuration but several
SAMPLES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 0.5, -0.5, 1e-9, math.nan, math.inf, -math.inf, 10**20, -(10**20),
    "", " ", "soon", "0", "a/b", "a\x00b", "x" * 300, "x" * 3000,
    "${nope}", "${seed}", "${size}", "${optimizer}", "???",
    [], [0], [-1], [1, 2], ["a"], [None], [[]], {}, {"a": 1}, {"train": 3},
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(SAMPLES),
    st.integers(-10, 10),
    st.floats(),
    st.text(max_size=8).filter(lambda text: "$" not in text and "?" not in text),
    st.lists(st.integers(-3, 300), max_size=3),
)
"""Wrong types, numbers at and beyond every border, strings of all lengths, lists, mappings, interpolations."""
HUGE = st.sampled_from([10**6, 10**12, 2**62])
"""Sizes that nobody has memory or time for: refused or not, they are not trained."""


def _task_of(data: str) -> str:
    batch_type = {task: found.batch_type for task, found in option_classes("task")}
    yields = dict(option_classes("data"))[data].yields
    return next(task for task, taken in batch_type.items() if taken is yields)


@functools.cache
def _base(group: str, option: str) -> tuple[Job, tuple[str, ...]]:
    """A job with an option, and the keys that the option brought."""
    task = [f"task={_task_of(option)}"] if group == "data" else []
    chosen = [f"{group}={option}", *task]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*SMALL, *chosen], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    found = choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    job = Job(config, Path("nowhere"), found, chosen)
    return job, tuple(_keys(config[group], f"{group}.")) or (group,)


def _keys(node: Any, path: str) -> Iterator[str]:
    for key in node if isinstance(node, DictConfig) else ():
        yield f"{path}{key}"
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            yield from _keys(node[key], f"{path}{key}.")


OPTIONS = sorted((group, option) for group, options in groups().items() if group not in WHOLE for option in options)
SETTINGS = ["seed", "compile", "resume", "init_from", "skip_finished", "study", "on_incompatible", "cache", "monitor",
            "monitor.name", "monitor.mode", "threads"]  # fmt: skip


CHOICES = st.sampled_from(OPTIONS), st.integers(0, 999)
"""An option, and the number of a key."""


def _key(keys: tuple[str, ...], number: int) -> str:
    """Three times of four one of the option's own."""
    return keys[number % len(keys)] if number % 4 else SETTINGS[number % len(SETTINGS)]


def _changed(job: Job, directory: Path, key: str, value: Any) -> Job:
    config = job.config.copy()
    OmegaConf.set_struct(config, True)
    OmegaConf.update(config, key, value, merge=False)
    return Job(config, directory, dict(job.choices), list(job.overrides))


def _is_a_sentence(text: str) -> None:
    assert text.strip()
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 1000


def _is_a_whole_number_for_a_float(error: TypeCheckError, value: Any) -> None:
    """Calls are checked in the tests alone, where 6 is no float."""
    if type(value) is not int or "float" not in str(error):
        raise error


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*CHOICES, VALUES | HUGE)
def test_a_value_is_accepted_or_refused_in_a_sentence(option: tuple[str, str], number: int, value: Any) -> None:
    job, keys = _base(*option)
    key = _key(keys, number)
    note(f"{key}={value!r:.100}")
    try:
        changed = _changed(job, Path("nowhere"), key, value)
        _read(changed, Summary("failed"))
        build_trainer(changed)
    except XformerError as error:
        _is_a_sentence(str(error))
    except OmegaConfBaseException as error:  # of what cannot even be set
        _is_a_sentence(explain_error(error))
    except TypeCheckError as error:
        _is_a_whole_number_for_a_float(error, value)


ALONE = CHOICES[0].filter(lambda option: option != ("trainer", "ddp"))
"""But for what would start this test's process anew."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's advice, such as on a model of one batch
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    CHOICES[0].filter(lambda option: option != ("trainer", "ddp")), CHOICES[1], VALUES
)  # which starts this test anew
def test_what_is_accepted_trains(option: tuple[str, str], number: int, value: Any) -> None:
    """Two steps: a run that looks finished has measured what it monitors."""
    job, keys = _base(*option)
    key = _key(keys, number)
    note(f"{key}={value!r:.100}")
    directory = Path(mkdtemp())
    small: dict[str, Any] = {
        "trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.max_time": "00:00:00:20",
        "data.generation.train_size": 64, "data.generation.val_size": 8, "data.generation.test_size": 8,
        "data.loader.batch_size": 2, "cache": str(directory),
    }  # fmt: skip
    base = job.config.copy()
    for name, least in small.items():
        if OmegaConf.select(base, name) is not None:
            OmegaConf.update(base, name, least)
    try:
        changed = _changed(Job(base, directory, job.choices, job.overrides), directory / "run", key, value)
        run(changed)
    except XformerError as error:
        _is_a_sentence(str(error))
        return
    except OmegaConfBaseException as error:
        _is_a_sentence(explain_error(error))
        return
    except TypeCheckError as error:
        _is_a_whole_number_for_a_float(error, value)
        return
    finally:
        torch.set_flush_denormal(False)  # which every run switches on, and hypothesis does not bear
    summary = read_summary(directory / "run")
    assert summary.status == "finished"
    if changed.config.trainer.limit_val_batches is None and not changed.config.trainer.fast_dev_run:
        assert summary.monitor is not None
        assert summary.monitor.best is not None

"""Settings of a benchmark: `conf/benchmark.yaml`, then the quick settings, then the command line."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xformer.benchmark import entries
from xformer.benchmark.kinds import (
    AUTOCAST,
    COMPILE,
    COUNT,
    DTYPE,
    ENTRIES,
    ENTRY,
    GOAL,
    NAMES,
    NANOGPT,
    SECONDS,
    TRUTH,
    WORD,
    Kind,
    non_empty_list,
)
from xformer.config.groups import CONF, nearest
from xformer.errors import ConfigError

_TENSORS = {"dtype": DTYPE, "batch": COUNT, "heads": COUNT, "head_dim": COUNT}
_MODEL = {"model": non_empty_list(WORD), "characters": COUNT}
READ: dict[str, dict[str, Kind]] = {
    "attention": {
        "rounds": COUNT,
        "seconds": SECONDS,
        **_TENSORS,
        "lengths": non_empty_list(COUNT),
        "causal": non_empty_list(TRUTH),
        "variants": non_empty_list(ENTRY),
        "parameters": ENTRIES,
    },
    "pairs": {"rounds": COUNT, "seconds": SECONDS, **_TENSORS, "pairs": non_empty_list(ENTRY)},
    "training": {
        "rounds": COUNT,
        "seconds": SECONDS,
        "dtype": AUTOCAST,
        "whole": non_empty_list(WORD),
        "vocabulary": COUNT,
        "tokens": COUNT,
        "models": ENTRIES,
        **_MODEL,
        "compiled": TRUTH,
        "others": NAMES,
        "nanogpt": NANOGPT,
    },
    "decoding": {
        "rounds": COUNT,
        "dtype": DTYPE,
        "variants": non_empty_list(ENTRY),
        "parameters": ENTRIES,
        **_MODEL,
        "contexts": non_empty_list(COUNT),
        "batches": non_empty_list(COUNT),
        "new_tokens": COUNT,
        "goal": GOAL,
    },
    "overhead": {"rounds": COUNT, "model": non_empty_list(WORD)},
    "startup": {"rounds": COUNT},
    "step": {"train": non_empty_list(WORD), "compile": non_empty_list(COMPILE), "steps": COUNT},
    "threads": {"rounds": COUNT, "runs": non_empty_list(WORD), "steps": COUNT, "busy": COUNT},
}
"""The settings that each question uses; others are refused."""


def settings(question: str, overrides: Sequence[str], *, quick: bool = False, gpu: bool = False) -> DictConfig:
    """Compose and check the settings of a benchmark.

    Args:
        question: the benchmark.
        overrides: the typed overrides.
        quick: whether to use its quick settings.
        gpu: whether to use the settings of the GPU table.

    Raises:
        ConfigError: a key is unknown, an override is not of the form `key=value`, or a value is not valid.
    """
    whole = OmegaConf.load(CONF / "benchmark.yaml")
    assert isinstance(whole, DictConfig)
    config = OmegaConf.masked_copy(whole, list(READ[question]))
    for chosen, name in ((quick, "quick"), (gpu, "gpu")):
        if chosen:
            config.merge_with(whole[name].get(question, {}))
    for override in overrides:
        _override(config, override, question)
    if config.get("variants", ()) is None:
        ENTRIES.check("parameters", OmegaConf.to_container(config.parameters))
        entries.check_entries("parameters", entries.entries(config, "parameters"))
        config.variants = entries.found_variants(config)
    _check(config, READ[question])
    if "seconds" in config:
        config.seconds = float(config.seconds)
    OmegaConf.set_struct(config, True)
    return config


def _override(config: DictConfig, override: str, question: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"{override} is not a setting; write key=value, with a key of {', '.join(map(str, config))}.")
    top = key.split(".")[0]
    if top not in config:
        raise ConfigError(f"{key}={value} is not a setting of `{question}`; {nearest(top, map(str, config))}")
    if isinstance(config[top], ListConfig) and key != top and not key.split(".")[1].isdigit():
        raise ConfigError(f"{override} is not a setting of `{question}`: {_as_list(top, config[top], override)}.")
    try:
        config.merge_with_dotlist([override])
    except (OmegaConfBaseException, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}={value} cannot be set in conf/benchmark.yaml: {str(error).splitlines()[0].rstrip('.')}; write the "
            "value as YAML, such as lengths=[1024,2048]."
        ) from error


def _as_list(name: str, values: ListConfig, override: str) -> str:
    """The list that was probably meant by a key below a list: with the key as one of its overrides, if it has such."""
    plain = OmegaConf.to_container(values)
    assert isinstance(plain, list)
    if not any(isinstance(value, str) and "=" in value for value in plain):
        return f"{name} is a list, not a group of keys; write all of it, as in {_typed(name, plain)}"
    whole = _typed(name, [*plain, override.removeprefix(f"{name}.")])
    return f"{name} is a list of overrides of conf/train.yaml; write all of it, as in {whole}"


def _typed(name: str, values: list[Any]) -> str:
    """A setting as it is typed in a shell."""
    text: str = yaml.safe_dump(values, default_flow_style=True, width=math.inf, sort_keys=False)
    return shlex.quote(f"{name}={text.strip()}")


def _check(config: DictConfig, kinds: dict[str, Kind]) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    for key, kind in kinds.items():
        kind.check(key, plain[key])
        if key in entries.FORMS:
            entries.check_entries(key, plain[key])


def recorded(config: DictConfig) -> dict[str, Any]:
    """All settings to record, including defaults of the entries' attention options."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return {
        key: [entries.completed(entry) for entry in value] if key in entries.FORMS else value
        for key, value in plain.items()
    }

"""What goes with what, and why not: from the classes that a configuration names, before anything is built."""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from xformer.architecture.base import Architecture
from xformer.attention.base import Attention
from xformer.config.options import option_nodes
from xformer.config.validate import CONF, command_line_key, defaults, groups, slot_default, slots, target
from xformer.core.capability import Capability
from xformer.data.base import DataModule
from xformer.errors import ConfigError, IncompatibleError
from xformer.position.base import Position
from xformer.tasks.base import Task

MEANINGS = {
    Capability.CAUSAL: "causal attention",
    Capability.CROSS: "attention from one sequence to another",
    Capability.PADDING: "padded batches",
    Capability.BIAS: "a relative bias on the scores",
    Capability.CONTENT_BIAS: "a relative bias that depends on the query",
    Capability.ROTARY: "rotated queries and keys",
}


def check_compatibility(config: DictConfig, choices: dict[str, str]) -> None:
    """Compare what task, data, architecture and positions need with what the others provide.

    Args:
        config: a valid configuration.
        choices: the option chosen in each group and slot, to name in the message.

    Raises:
        ConfigError: a group has no option, or several where it takes one.
        IncompatibleError: naming the pair, the reason and the options that would work.
    """
    _refuse_unchosen(config, choices)
    task = cast(type[Task], target(config.task))
    data = cast(type[DataModule], target(config.data))
    architecture = cast(type[Architecture], target(config.architecture))
    if data.yields is not task.batch_type:
        reason = f"it yields {data.yields.__name__}, and {task.batch_type.__name__} is needed"
        raise _error(choices, "data", "task", reason, lambda other: other.yields is task.batch_type)
    if task.needs_causal and not architecture.causal:
        reason = "each token would see the one it has to predict"
        raise _error(choices, "architecture", "task", reason, lambda other: bool(other.causal))
    if task.transduces and not architecture.transduces:
        reason = "it cannot write one sequence while it reads another"
        raise _error(choices, "architecture", "task", reason, lambda other: bool(other.transduces))
    _refuse_unused(config, choices)
    _refuse_untaken(config, choices)
    for key, slot in architecture.slots.items():
        needs = {"architecture": slot.needs}
        if slot.pads and data.pads:
            needs["data"] = Capability.PADDING
        if slot.position is not None:
            needs[slot.position] = cast(type[Position], target(config[slot.position])).needs
        _check_attention(key, cast(type[Attention], target(config[key])), needs, choices)


def _refuse_unchosen(config: DictConfig, choices: dict[str, str]) -> None:
    """Every group that has an option by default keeps one; of callbacks and loggers there may be several."""
    for key, (group, default) in defaults().items():
        if default is None or (key in slots() and key in unused_slots(config)):
            continue
        if not isinstance(config.get(key), DictConfig):
            raise ConfigError(
                f"{key} has no option; choose one, such as {command_line_key(key)}={slot_default(key, choices)}."
            )
        if "_target_" in config[key] and key not in choices:
            raise ConfigError(
                f"{command_line_key(key)} takes one option and not several; a run of each is python train.py -m "
                f"{command_line_key(key)}={','.join(groups()[group][:2])}, for example."
            )


def unused_slots(config: DictConfig) -> list[str]:
    """The slots of other architectures, which stand in every configuration."""
    architecture = cast(type[Architecture], target(config.architecture))
    return [key for key in slots() if key not in {*architecture.slots, *architecture.positions()}]


def _refuse_unused(config: DictConfig, choices: dict[str, str]) -> None:
    for key in unused_slots(config):
        if key not in choices:
            continue
        asked = _changed_keys(config, key, choices[key])
        if choices[key] != slot_default(key, choices):
            asked = [f"{command_line_key(key)}={choices[key]}", *asked]
        if asked:
            takers = [
                f"architecture={o}"
                for o, found in option_classes("architecture")
                if key in {*found.slots, *found.positions()}
            ]
            raise IncompatibleError(
                f"{asked[0]} does not go with architecture={choices['architecture']}: it has no such slot; what would "
                f"work: {', '.join(takers)}."
            )


_TAKERS = {"tokenizer": "data", "loss": "task"}
"""Groups that only some options of another group take."""


def _refuse_untaken(config: DictConfig, choices: dict[str, str]) -> None:
    for group, by in _TAKERS.items():
        if group not in config[by] and choices.get(group, defaults()[group][1]) != defaults()[group][1]:
            takers = [f"{by}={option}" for option, node in option_nodes(by) if group in node]
            raise IncompatibleError(
                f"{group}={choices[group]} does not go with {by}={choices[by]}, which has no {group}; what would work: "
                f"{', '.join(takers)}."
            )


def _changed_keys(config: DictConfig, key: str, option: str) -> list[str]:
    """What a slot's node has otherwise than its option's file, as the command line spells it."""
    written = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / slots()[key] / f"{option}.yaml")))
    found = cast(dict[str, Any], OmegaConf.to_container(config[key]))
    return [f"{key}.{name}={value}" for name, value in found.items() if written.get(name) != value]


def _check_attention(
    key: str, attention: type[Attention], needs: dict[str, Capability], choices: dict[str, str]
) -> None:
    everything = functools.reduce(operator.or_, needs.values())
    for other, needed in needs.items():
        for capability in needed & ~attention.provides:
            why = attention.reasons.get(capability, "it does not provide that.").rstrip(".")
            reason = f"{MEANINGS[capability]} is needed, and {why}"
            raise _error(choices, key, other, reason, lambda option: everything in option.provides)


def _error(
    choices: dict[str, str], key: str, other: str, reason: str, works: Callable[[Any], bool]
) -> IncompatibleError:
    options = [
        f"{command_line_key(key)}={option}" for option, found in option_classes(slots().get(key, key)) if works(found)
    ]
    way_out = ", ".join(options) or f"no {key}; choose another {other}"
    return IncompatibleError(
        f"{command_line_key(key)}={choices[key]} does not go with {command_line_key(other)}={choices[other]}: "
        f"{reason}; what would work: {way_out}."
    )


def option_classes(group: str) -> Iterator[tuple[str, Any]]:
    """Every option of a group that is one node, and the class it names."""
    for option, node in option_nodes(group):
        if "_target_" in node:
            yield option, target(node)

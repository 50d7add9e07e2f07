"""What goes with what, and why not: from the classes that a configuration names, before anything is built."""

from collections.abc import Callable, Iterator
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from xformer.architecture.stack import Stack
from xformer.attention.base import Attention
from xformer.attention.capability import Capability
from xformer.configuration import CONF, groups, target
from xformer.data.base import DataModule
from xformer.errors import IncompatibleError
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


def check(config: DictConfig, choices: dict[str, str]) -> None:
    """Compare what task, data, architecture and position need with what the others provide.

    Args:
        config: a valid configuration.
        choices: the option chosen in each group, to name in the message.

    Raises:
        IncompatibleError: naming the pair, the reason and the options that would work.
    """
    task = cast(type[Task], target(config.task))
    data = cast(type[DataModule], target(config.data))
    architecture = cast(type[Stack], target(config.architecture))
    position = cast(type[Position], target(config.position))
    if data.yields is not task.takes:
        reason = f"it yields {data.yields.__name__}, and {task.takes.__name__} is needed"
        raise _error(choices, "data", "task", reason, lambda other: other.yields is task.takes)
    if task.needs_causal and not architecture.causal:
        reason = "each token would see the one it has to predict"
        raise _error(choices, "architecture", "task", reason, lambda other: bool(other.causal))
    needs = {
        "architecture": architecture.needs,
        "data": Capability.PADDING if data.pads else Capability.NONE,
        "position": position.needs,
    }
    _check_attention(cast(type[Attention], target(config.attention)), needs, choices)


def _check_attention(attention: type[Attention], needs: dict[str, Capability], choices: dict[str, str]) -> None:
    everything = needs["architecture"] | needs["data"] | needs["position"]
    for group, needed in needs.items():
        for capability in needed & ~attention.provides:
            why = attention.reasons.get(capability, "it does not provide that.").rstrip(".")
            reason = f"{MEANINGS[capability]} is needed, and {why}"
            raise _error(choices, "attention", group, reason, lambda other: everything in other.provides)


def _error(
    choices: dict[str, str], group: str, other: str, reason: str, works: Callable[[Any], bool]
) -> IncompatibleError:
    options = [f"{group}={option}" for option, found in classes(group) if works(found)]
    way_out = ", ".join(options) or f"no {group}; choose another {other}"
    return IncompatibleError(
        f"{group}={choices[group]} does not go with {other}={choices[other]}: {reason}; what would work: {way_out}."
    )


def classes(group: str) -> Iterator[tuple[str, Any]]:
    """Every option of a group that is one node, and the class it names."""
    for option in groups()[group]:
        node = OmegaConf.load(CONF / group / f"{option}.yaml")
        if isinstance(node, DictConfig) and "_target_" in node:
            yield option, target(node)

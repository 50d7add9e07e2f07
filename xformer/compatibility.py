"""What goes with what, and why not: from the classes that a configuration names, before anything is built."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from xformer.attention.base import Attention
from xformer.attention.capability import Capability
from xformer.configuration import CONF, groups, target
from xformer.errors import IncompatibleError

MEANINGS = {
    Capability.CAUSAL: "causal attention",
    Capability.CROSS: "attention from one sequence to another",
    Capability.PADDING: "padded batches",
    Capability.BIAS: "a relative bias on the scores",
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
    task, data, architecture = (target(config[group]) for group in ("task", "data", "architecture"))
    if data.yields is not task.takes:
        raise _error(choices, "data", "task", f"it yields {data.yields.__name__}, and {task.takes.__name__} is needed",
                     (name for name, other in _classes("data") if other.yields is task.takes))
    if task.needs_causal and not architecture.causal:
        raise _error(choices, "architecture", "task", "each token would see the one it has to predict",
                     (name for name, other in _classes("architecture") if other.causal))
    attention = target(config.attention)
    needs = {
        "architecture": architecture.needs,
        "data": Capability.PADDING if data.pads else Capability.NONE,
        "position": target(config.position).needs,
    }
    everything = needs["architecture"] | needs["data"] | needs["position"]
    for group, needed in needs.items():
        for capability in needed & ~attention.provides:
            reason = attention.reasons.get(capability, "it does not provide that.")
            raise _error(choices, "attention", group, f"{MEANINGS[capability]} is needed, and {reason.rstrip('.')}",
                         (name for name, other in _classes("attention") if everything in other.provides))


def _classes(group: str) -> Iterator[tuple[str, type[Attention]]]:
    for option in groups()[group]:
        node = OmegaConf.load(CONF / group / f"{option}.yaml")
        if isinstance(node, DictConfig) and "_target_" in node:
            yield option, target(node)


def _error(choices: dict[str, str], group: str, other: str, reason: str, options: Iterator[str]) -> IncompatibleError:
    works = ", ".join(f"{group}={option}" for option in options) or f"no other {group}; choose another {other}"
    return IncompatibleError(
        f"{group}={choices[group]} does not go with {other}={choices[other]}: {reason}; what would work: {works}."
    )

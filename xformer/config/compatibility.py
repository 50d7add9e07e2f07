"""The compatibility check: which choices work together, from their classes' declarations, before anything is built."""

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from xformer.architecture.base import Architecture
from xformer.architecture.slot import Slot
from xformer.attention.base import Attention
from xformer.config.entries import Layer, layers_of
from xformer.config.groups import command_line_key, defaults, groups, load_option, option_nodes, slot_default, slots
from xformer.config.validate import target
from xformer.core.capability import Capability
from xformer.core.program import train_command
from xformer.data.base import DataModule
from xformer.errors import ConfigError, IncompatibleError
from xformer.position.base import Position
from xformer.tasks.base import Task

MEANINGS = {
    Capability.CAUSAL: "causal attention",
    Capability.BIDIRECTIONAL: "reading later tokens as well as earlier ones",
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
        needs = {_chosen(choices, "architecture"): slot.needs}
        if slot.pads and data.pads:
            needs[_chosen(choices, "data")] = Capability.PADDING
        layers = layers_of(config[key], key, choices[key])
        _check_depth(config, key, layers)
        _check_positions(config, key, slot, layers, choices)
        for index, layer in enumerate(layers):
            _check_layer(config, key, slot, layer, needs, choices, index if len(layers) > 1 else None)
    _check_grouped_heads(config, architecture, choices)


def _chosen(choices: dict[str, str], key: str) -> str:
    """A choice in command-line form, such as `attention@decoder_attention=local`."""
    return f"{command_line_key(key)}={choices[key]}"


def _refuse_unchosen(config: DictConfig, choices: dict[str, str]) -> None:
    """Refuse a group without an option, or with several where one is expected; callbacks and loggers may be several."""
    for key, (group, default) in defaults().items():
        if default is None or (key in slots() and key in unused_slots(config)):
            continue
        if not isinstance(config.get(key), DictConfig):
            raise ConfigError(
                f"{key} has no option; choose one, such as {command_line_key(key)}={slot_default(key, choices)}."
            )
        if "_target_" in config[key] and key not in choices:
            raise ConfigError(
                f"{command_line_key(key)} takes one option and not several; to run each of them: {train_command()} -m "
                f"{command_line_key(key)}={','.join(groups()[group][:2])}, for example."
            )


def unused_slots(config: DictConfig) -> list[str]:
    """The slots in a configuration that only other architectures use."""
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
"""Groups that only some options of another group use."""


def _refuse_untaken(config: DictConfig, choices: dict[str, str]) -> None:
    for group, by in _TAKERS.items():
        if group not in config[by] and choices.get(group, defaults()[group][1]) != defaults()[group][1]:
            takers = [f"{by}={option}" for option, node in option_nodes(by) if group in node]
            raise IncompatibleError(
                f"{group}={choices[group]} does not go with {by}={choices[by]}, which has no {group}; what would work: "
                f"{', '.join(takers)}."
            )


def _changed_keys(config: DictConfig, key: str, option: str) -> list[str]:
    """The keys of a slot that differ from its option's file, in command-line form."""
    stated = cast(dict[str, Any], OmegaConf.to_container(load_option(slots()[key], option)))
    found = cast(dict[str, Any], OmegaConf.to_container(config[key]))
    return [f"{key}.{name}={value}" for name, value in found.items() if stated.get(name) != value]


def _check_depth(config: DictConfig, key: str, layers: list[Layer]) -> None:
    """Refuse a hybrid with more entries than layers, or with different entries where all layers share one block."""
    depth, listed = config.size.layers, f"{key}.layers"
    if len(layers) > depth:
        raise ConfigError(
            f"{listed} has {len(layers)} entries and size.layers={depth}: write at most one for each layer; fewer are "
            f"repeated over the depth."
        )
    if config.architecture.share_layers and len({str(layer.written_out()) for layer in layers}) > 1:
        raise ConfigError(
            f"architecture.share_layers=true makes all layers one block, and {listed} has different ones: use "
            "architecture.share_layers=false, or one entry."
        )


def _check_positions(config: DictConfig, key: str, slot: Slot, layers: list[Layer], choices: dict[str, str]) -> None:
    """Refuse a layer's own position scheme that cannot act in the layer or replaces nothing."""
    for layer in layers:
        if layer.position is None or layer.scheme is None:
            continue
        asked = f"{layer.path}.{layer.attention.name}.position={layer.position.name}"
        if slot.position is None:
            raise IncompatibleError(f"{asked}: {slot.name} attention has no positions; leave it out.")
        if layer.scheme.embed is not Position.embed:
            raise IncompatibleError(
                f"{asked} acts on the embeddings, which all layers read: choose it for the whole stack, "
                f"{command_line_key(slot.position)}={layer.position.name}, or use a scheme that acts in a layer, "
                "such as rotary."
            )
        stack = cast(type[Position], target(config[slot.position]))
        if layer.scheme is Position and stack.embed is not Position.embed:
            raise IncompatibleError(
                f"{asked} changes nothing with {_chosen(choices, slot.position)}, which acts on the embeddings that "
                f"all layers read; it would with {command_line_key(slot.position)}=rotary, for example."
            )
    if slot.position is not None and all(layer.position is not None for layer in layers):
        stack = cast(type[Position], target(config[slot.position]))
        if stack.needs:
            raise IncompatibleError(
                f"{_chosen(choices, slot.position)} is used by no layer: every entry of {key}.layers has a position "
                f"scheme of its own; {command_line_key(slot.position)}=none would work."
            )


def _check_layer(
    config: DictConfig,
    key: str,
    slot: Slot,
    layer: Layer,
    needs: dict[str, Capability],
    choices: dict[str, str],
    index: int | None,
) -> None:
    """Compare what a layer needs with what its variant provides; `index` is that of an entry of a hybrid."""
    needs = dict(needs)
    if layer.position is not None and layer.scheme is not None:
        needs[f"position={layer.position.name}"] = layer.scheme.needs
    elif slot.position is not None:
        needs[_chosen(choices, slot.position)] = cast(type[Position], target(config[slot.position])).needs
    everything = functools.reduce(operator.or_, needs.values())
    variant = layer.variant
    for other, needed in needs.items():
        for capability in needed & ~variant.provides:
            why = variant.reasons.get(capability, "it does not provide that.").rstrip(".")
            reason = f"{MEANINGS[capability]} is needed, and {why}"
            works = [option for option, found in option_classes("attention") if everything in found.provides]
            if index is None:
                raise _refused(
                    _chosen(choices, key), other, reason, [f"{command_line_key(key)}={option}" for option in works], key
                )
            alone = functools.reduce(operator.or_, (need for name, need in needs.items() if name != other))
            if other.startswith("position") and alone in variant.provides:
                works.append(f"{{{layer.attention.name}: {{position: none}}}}")
            raise _refused(_place(config, layer, index, choices, key), other, reason, works, key)


def _place(config: DictConfig, layer: Layer, index: int, choices: dict[str, str], key: str) -> str:
    """An entry of a hybrid and its layers, for a message: `attention.layers[1]=linformer (layers 1, 3)`."""
    entries = len(layers_of(config[key], key, choices[key]))
    served = [str(number) for number in range(config.size.layers) if number % entries == index]
    return f"{layer.path}={layer.attention.name} (layer{'s' * (len(served) > 1)} {', '.join(served)})"


def _check_grouped_heads(config: DictConfig, architecture: type[Architecture], choices: dict[str, str]) -> None:
    """Refuse grouped key-value heads where no layer has keys and values."""
    heads = config.architecture.key_value_heads
    found = [layer.variant for key in architecture.slots for layer in layers_of(config[key], key, choices[key])]
    if heads is not None and not any(issubclass(variant, Attention) for variant in found):
        raise IncompatibleError(
            f"architecture.key_value_heads={heads} does not go with {_chosen(choices, 'attention')}, which has no keys "
            "and values for heads to share; architecture.key_value_heads=null would work."
        )


def _error(
    choices: dict[str, str], key: str, other: str, reason: str, works: Callable[[Any], bool]
) -> IncompatibleError:
    options = [
        f"{command_line_key(key)}={option}" for option, found in option_classes(slots().get(key, key)) if works(found)
    ]
    return _refused(_chosen(choices, key), _chosen(choices, other), reason, options, key)


def _refused(what: str, other: str, reason: str, options: list[str], key: str) -> IncompatibleError:
    way_out = ", ".join(options) or f"no {key}; choose another than {other}"
    return IncompatibleError(f"{what} does not go with {other}: {reason}; what would work: {way_out}.")


def option_classes(group: str) -> Iterator[tuple[str, Any]]:
    """The class of every option of a group; options without a class of their own (hybrids) are left out."""
    for option, node in option_nodes(group):
        if "_target_" in node and inspect.isclass(found := target(node)):
            yield option, found

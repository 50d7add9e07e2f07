"""Stable names of a model's parts for initial values and checkpoints, which survive renamed attributes.

A part has the name of its attribute, unless its layer declares another. To rename an attribute, declare its original
name; then initial weights of every seed stay the same, and earlier checkpoints open:

    class Stack(nn.Module):
        stable_names = {"blocks_of_both": "tower"}  # self.blocks_of_both was self.tower
"""

from typing import Any

from torch import nn


def stable_name(model: nn.Module, path: str) -> str:
    """The stable name of a module, parameter or buffer, from the path of attributes that leads to it."""
    return _translated(model, path, to_attributes=False)


def stable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by their stable names."""
    return {stable_name(model, path): parameter for path, parameter in model.named_parameters()}


def keep_stable_names(model: nn.Module) -> None:
    """Make a model save and load its state dict with stable names."""
    model.register_state_dict_post_hook(_write)  # type: ignore[no-untyped-call]
    model.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]


def _translated(model: nn.Module, path: str, *, to_attributes: bool) -> str:
    names: list[str] = []
    module: nn.Module | None = model
    for part in path.split("."):
        stated = getattr(module, "stable_names", {})
        attributes = {name: attribute for attribute, name in stated.items()}
        attribute = attributes.get(part, part) if to_attributes else part
        names.append(attribute if to_attributes else stated.get(part, part))
        module = None if module is None else module._modules.get(attribute)
    return ".".join(names)


def _write(model: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(model, state, prefix, to_attributes=False)


def _read(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(model, state, prefix, to_attributes=True)


def _rename(model: nn.Module, state: dict[str, Any], prefix: str, *, to_attributes: bool) -> None:
    for key in [key for key in state if key.startswith(prefix)]:  # restore all, in their order
        path = key.removeprefix(prefix)
        state[prefix + _translated(model, path, to_attributes=to_attributes)] = state.pop(key)

"""Initialisation: values depend only on the seed and a layer's stable name."""

import hashlib

import torch
from torch import nn

from xformer.layers.stable_names import stable_name


def initialise(model: nn.Module, seed: int) -> None:
    """Call `reset_parameters` of every module that has it, each with its own random generator.

    A parameter's initial value then depends only on the seed and the stable name of its layer (`stable_names`), not on
    other modules or on names of attributes and classes: two variants with one seed start from identical shared weights,
    and adding a module changes no other.
    """
    device_generators: list[int] = []
    # torch.manual_seed records the call stack for each kind of device that is not in use yet, which takes longer than
    # to reset a layer.
    on_cpu = all(parameter.is_cpu for parameter in model.parameters())
    set_seed = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    with torch.random.fork_rng(devices=device_generators):
        for path, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                digest = hashlib.sha256(f"{seed}/{stable_name(model, path)}".encode()).digest()
                set_seed(int.from_bytes(digest[:7], "big"))
                reset()

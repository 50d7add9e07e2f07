"""How large the loss's gradient is in each layer: vanishing and exploding ones show by depth.

The gradient is that of the examples' mean loss, in evaluation mode; it is not what the optimiser saw of a batch, so
that it is comparable from one validation to the next and between variants. The norm is the L2 norm over all of a
layer's parameters.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.linalg import vector_norm

from xformer.architecture.base import Architecture
from xformer.architecture.tower import Tower
from xformer.data.batch import Batch
from xformer.inspection.probes.base import Probe
from xformer.layers.stable_names import stable_name, stable_parameters
from xformer.tasks.base import Task


class GradientNorm(Probe):
    """Logs `probe/gradient_norm/STACK/LAYER`, `probe/gradient_norm/embedding` and `probe/gradient_norm/rest`.

    Layers that share their parameters are one.

    Args:
        examples: sequences that are measured.
    """

    def measure(self, task: Task, examples: list[Batch]) -> Mapping[str, Tensor]:
        """The norms by layer."""
        named = {name: parameter for name, parameter in stable_parameters(task).items() if parameter.requires_grad}
        with torch.inference_mode(False), torch.enable_grad():
            sums: list[Tensor] = [torch.zeros_like(parameter) for parameter in named.values()]
            for example in examples:
                loss = task.step(task.prepare(_usable(example))).loss
                found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
                sums = [a if b is None else a + b / len(examples) for a, b in zip(sums, found, strict=True)]
        squares = {name: vector_norm(total).square() for name, total in zip(named, sums, strict=True)}
        names = _stacks(task.model)
        norms: dict[str, Tensor] = {}
        for name, square in squares.items():
            place = f"gradient_norm/{_place(name, names)}"
            norms[place] = norms.get(place, torch.zeros_like(square)) + square
        return {place: square.sqrt() for place, square in norms.items()}


def _usable(example: Batch) -> Batch:
    """A copy that autograd may keep, which it may not of tensors made in inference mode."""
    return type(example)(*(field.clone() if isinstance(field, Tensor) else field for field in example))  # type: ignore[arg-type]


def _stacks(model: Architecture) -> dict[str, str]:
    """By a stack's stable name, the name of its self-attention's slot."""
    towers = [(stable_name(model, name), part) for name, part in model.named_children() if isinstance(part, Tower)]
    slots, found = iter(model.slots.values()), {}
    for name, tower in towers:
        found[name], *_ = [next(slots).name for _ in tower.mixers]
    return found


def _place(parameter: str, stacks: Mapping[str, str]) -> str:
    layer = re.match(r"model\.(\w+)\.blocks\.(\d+)\.", parameter)
    if layer:
        return f"{stacks[layer[1]]}/layer{layer[2]}"
    return "embedding" if parameter.startswith("model.embedding.") else "rest"

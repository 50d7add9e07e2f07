"""The norm of the loss's gradient in each layer, which shows vanishing and exploding gradients.

The gradient is that of the examples' mean loss in evaluation mode, not that of a training batch, so that it is
comparable between validations and between variants. The norm is the L2 norm over all parameters of a layer.
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

    Layers that share their parameters have one norm.

    Args:
    examples: the number of sequences to measure.
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
    """Copy tensors, because autograd cannot save tensors made in inference mode."""
    return type(example)(*(field.clone() if isinstance(field, Tensor) else field for field in example))  # type: ignore[arg-type]


def _stacks(model: Architecture) -> dict[str, str]:
    """Stacks by stable name, with the slot of their self-attention."""
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

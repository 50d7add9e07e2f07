"""Optimizer factories, which the task calls with the model and whether fused kernels may be used."""

from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Interval, Len
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from xformer.attention.mixer import TokenMixer
from xformer.position.base import Position

OptimizerFactory = Callable[[nn.Module, bool], Optimizer]
"""What `conf/optimizer/*.yaml` instantiates to: (model, fused) -> optimiser."""
Betas = Annotated[list[Annotated[float, Interval(ge=0, lt=1)]], Len(2, 2)]
"""Adam's betas: the decay rates of the running means of the gradient and its square."""


def adamw(
    model: nn.Module,
    fused: bool,
    *,
    lr: Annotated[float, Ge(0)],
    betas: Betas,
    eps: Annotated[float, Ge(0)],
    weight_decay: Annotated[float, Ge(0)],
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only, not on biases, norms or other vectors.

    Vectors or numbers per head that are stored as one tensor are not treated as matrices.
    """
    matrices = _weight_matrices(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p not in matrices], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused)


def _weight_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The parameters to decay: matrices, except those excluded by position schemes and token mixers."""
    undecayed = {id(p) for module in model.modules() if isinstance(module, TokenMixer) for p in module.undecayed()}
    return {
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1
        if not (isinstance(module, Position) and name in module.vectors)
        if id(parameter) not in undecayed
    }


def adam(
    model: nn.Module, fused: bool, *, lr: Annotated[float, Ge(0)], betas: Betas, eps: Annotated[float, Ge(0)]
) -> Adam:
    """Adam (Kingma & Ba 2015)."""
    return Adam(
        (p for p in model.parameters() if p.requires_grad), lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused
    )

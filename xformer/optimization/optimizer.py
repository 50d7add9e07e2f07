"""Optimisers as functions of a model, called by the task with what it trains and whether kernels may be fused."""

from collections.abc import Callable

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from xformer.errors import ConfigError

OptimizerFactory = Callable[[nn.Module, bool], Optimizer]
"""What `conf/optimizer/*.yaml` instantiates to: (model, fused) -> optimiser."""


def adamw(model: nn.Module, fused: bool, *, lr: float, betas: list[float], eps: float, weight_decay: float) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices alone, not biases, norms or other vectors.

    Heads may have a matrix, vector or number each: that they are stored together makes no matrix of vectors.
    """
    matrices = _matrices(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p not in matrices], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, betas=_pair(betas), eps=eps, fused=fused)


def _matrices(model: nn.Module) -> set[nn.Parameter]:
    """What has more than one row and more than one column, but for what a module says are vectors all the same."""
    return {
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1 and name not in getattr(module, "vectors", ())
    }


def adam(model: nn.Module, fused: bool, *, lr: float, betas: list[float], eps: float) -> Adam:
    """Adam (Kingma & Ba 2015)."""
    return Adam((p for p in model.parameters() if p.requires_grad), lr=lr, betas=_pair(betas), eps=eps, fused=fused)


def _pair(betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ConfigError(f"optimizer.betas={betas} must be two numbers, such as [0.9, 0.98].")
    return betas[0], betas[1]

"""Optimisers as functions of a model, called by the task with what it trains and whether kernels may be fused."""

from collections.abc import Callable

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

OptimizerFactory = Callable[[nn.Module, bool], Optimizer]
"""What `conf/optimizer/*.yaml` instantiates to: (model, fused) -> optimiser."""


def adamw(
    model: nn.Module, fused: bool, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices alone, not biases, norms or other vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def adam(model: nn.Module, fused: bool, *, lr: float, betas: tuple[float, float], eps: float) -> Adam:
    """Adam (Kingma & Ba 2015)."""
    return Adam((p for p in model.parameters() if p.requires_grad), lr=lr, betas=betas, eps=eps, fused=fused)

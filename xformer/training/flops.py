"""Floating-point operations per token, counted on the operations that run.

Matrix products, convolutions and attention are counted, with a multiplication and an addition as two; element-wise
operations, softmax and norms are not. Attention always has the dense formula: two products forward and four backward,
without a discount for a causal mask and without the scores that a fused kernel recomputes. So the count is the same
fused and unfused, on a CPU and on a GPU. A variant that computes less has a lower count.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import xformer.attention.kernels.dense.distance_bias  # noqa: F401 - which defines the operators named below

_FORWARD = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
    torch.ops.xformer.attend_by_distance,
)
_BACKWARD = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward,
    torch.ops.xformer.attend_by_distance_backward,
)


def flops_per_token(model: nn.Module, loss: Callable[[], Tensor], *, tokens: int) -> float:
    """FLOPs of one forward and backward pass, per token.

    Restores gradients, buffers and the random state. The caller must keep other state, such as that of metrics, out of
    `loss`.

    Args:
        model: The model, whose gradients and buffers are restored.
        loss: Runs the model forward and returns a scalar.
        tokens: The number of tokens of that pass.

    Raises:
        ValueError: `tokens` is not positive.
    """
    if tokens <= 0:
        raise ValueError(f"tokens must be positive, got {tokens}")
    with preserving_state(model), torch.enable_grad():
        return flops_of(lambda: torch.autograd.backward(loss())) / tokens


def flops_of(call: Callable[[], object]) -> float:
    """FLOPs of a function call."""
    counter = FlopCounterMode(display=False, custom_mapping=_attention_formulas())
    with counter:
        call()
    return float(counter.get_total_flops())


def _attention_formulas() -> dict[Any, Callable[..., int]]:
    return dict.fromkeys(_FORWARD, _attention_forward) | dict.fromkeys(_BACKWARD, _attention_backward)


def _attention_forward(query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any) -> int:
    return _product(query, key, query[-1]) + _product(query, key, value[-1])


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any
) -> int:
    # Gradients of query and key each contract the scores; those of value and of the weights each contract the output.
    return 2 * _product(query, key, query[-1]) + 2 * _product(query, key, value[-1])


def _product(query: torch.Size, key: torch.Size, width: int) -> int:
    batch, heads, queries, _ = query
    return 2 * batch * heads * queries * key[-2] * width


@contextmanager
def preserving_state(model: nn.Module) -> Iterator[None]:
    """A context that restores gradients, buffers and the random state when it ends."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices={p.device for p, _ in gradients if p.device.type == "cuda"}):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                # By name too: a module may have put another tensor in the buffer's place.
                module._buffers[name] = buffer.copy_(before)

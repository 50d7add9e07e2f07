"""Kernel selection of linear recurrences: recurrent for a single token, else chunked, ours or fla's.

The kernels of flash-linear-attention (Yang & Zhang 2024, https://github.com/fla-org/flash-linear-attention) are written
in Triton for CUDA. They read tensors of 16 bits as they are and keep sums and states in float32.

Shapes: b rows, h heads, n tokens, d features of keys, e of values.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.attention.kernels.linear_recurrence.delta_rule import chunked_delta_rule, recurrent_delta_rule
from xformer.attention.kernels.linear_recurrence.linear_attention import (
    chunked_linear_attention,
    recurrent_linear_attention,
)
from xformer.core.precision import at_least_float32
from xformer.errors import ConfigError

Implementation = Literal["torch", "fla"]
Query = Float[Tensor, "b #h n d"]
Value = Float[Tensor, "b h n e"]
Matrix = Float[Tensor, "b h d e"]


def check_installed(kernel: Implementation, path: str) -> None:
    """Refuse a kernel whose package is missing.

    Args:
        kernel: the implementation.
        path: of the option in the configuration, for the message.

    Raises:
        ConfigError: `kernel` is fla, which is not installed.
    """
    if kernel == "fla" and find_spec("fla") is None:
        raise ConfigError(
            f"{path}.kernel=fla needs the package flash-linear-attention, which is not installed: pip install "
            f"flash-linear-attention, or use {path}.kernel=torch."
        )


def linear_attention(
    query: Query,
    key: Query,
    value: Value,
    log_decay: Float[Tensor, "#b h n #d"],
    state: Matrix | None,
    *,
    kernel: Implementation,
    path: str,
    dtype: torch.dtype,
) -> tuple[Value, Matrix]:
    """Linear attention with decay, in float32 at least: `linear_attention.py` has the equation.

    Args:
        query: the queries.
        key: the keys, zero at padding.
        value: the values.
        log_decay: at most 0, zero at padding; one per feature, or one for all.
        state: the state before the first token; None for zeros.
        kernel: the implementation of the chunked form.
        path: of the option in the configuration, for the message.
        dtype: the model's type, in which fla's kernel reads queries, keys and values.

    Raises:
        ConfigError: `kernel` is fla, and the tensors are not on a CUDA device.
    """
    if kernel == "fla" and value.shape[2] > 1:
        everywhere = (value.shape[0], value.shape[1], value.shape[2])
        query, key, log_decay = (x.expand(*everywhere, -1) for x in (query, key, log_decay))
        if log_decay.shape[-1] == 1 < key.shape[-1]:
            chunk = _of_fla("simple_gla", "chunk_simple_gla", value, path)
            log_decay = log_decay.squeeze(-1)
        else:
            chunk = _of_fla("gla", "chunk_gla", value, path)
        query, key, value = (x.to(dtype) for x in (query, key, value))
        return _called(chunk, state, q=query, k=key, v=value, g=at_least_float32(log_decay))
    form = recurrent_linear_attention if value.shape[2] == 1 else chunked_linear_attention
    return form(
        at_least_float32(query), at_least_float32(key), at_least_float32(value), at_least_float32(log_decay), state
    )


def delta_rule(
    query: Query,
    key: Query,
    value: Value,
    beta: Float[Tensor, "b h n 1"],
    log_decay: Float[Tensor, "b h n 1"],
    state: Matrix | None,
    *,
    kernel: Implementation,
    path: str,
    dtype: torch.dtype,
) -> tuple[Value, Matrix]:
    """The gated delta rule, in float32 at least: `delta_rule.py` has the equation.

    Args:
        query: the queries.
        key: the keys, of norm 1; zero at padding.
        value: the values.
        beta: the share to replace; zero at padding.
        log_decay: at most 0; zero at padding.
        state: the state before the first token; None for zeros.
        kernel: the implementation of the chunked form.
        path: of the option in the configuration, for the message.
        dtype: the model's type, in which fla's kernel reads queries, keys and values.

    Raises:
        ConfigError: `kernel` is fla, and the tensors are not on a CUDA device.
    """
    if kernel == "fla" and value.shape[2] > 1:
        chunk = _of_fla("gated_delta_rule", "chunk_gated_delta_rule", value, path)
        query, key, value = (x.to(dtype) for x in (query, key, value))
        gates = {"g": at_least_float32(log_decay).squeeze(-1), "beta": at_least_float32(beta).squeeze(-1)}
        return _called(chunk, state, q=query, k=key, v=value, **gates)
    form = recurrent_delta_rule if value.shape[2] == 1 else chunked_delta_rule
    return form(
        at_least_float32(query),
        at_least_float32(key),
        at_least_float32(value),
        at_least_float32(beta),
        at_least_float32(log_decay),
        state,
    )


def _of_fla(module: str, name: str, tensor: Tensor, path: str) -> Any:
    """Import a function of fla on use, as the import takes seconds and compiles for a device."""
    if tensor.device.type != "cuda":
        raise ConfigError(
            f"{path}.kernel=fla runs on CUDA alone, and this model is on {tensor.device.type}: use "
            f"{path}.kernel=torch, or trainer.accelerator=gpu on a machine with a CUDA device."
        )
    return getattr(import_module(f"fla.ops.{module}"), name)


def _called(chunk: Any, state: Matrix | None, **tensors: Tensor) -> tuple[Value, Matrix]:
    """Call a function of fla, whose tensors are (b n h ...)."""
    of_tokens = {name: tensor.transpose(1, 2).contiguous() for name, tensor in tensors.items()}
    outputs, last = chunk(**of_tokens, scale=1.0, initial_state=state, output_final_state=True)
    return at_least_float32(outputs).transpose(1, 2), last

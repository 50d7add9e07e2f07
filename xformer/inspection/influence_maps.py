r"""Influence maps: how much each output of a token mixer changes with each input token.

    I_ts = |d y_t / d x_s|_F

the Frobenius norm of a block of the mixer's Jacobian at the current input, with y = mixer(x) before the residual is
added. It is defined for every mixer, whether or not it multiplies values by weights. Rows are not normalised. For
cross-attention, x_s are the keys and values of token s of the memory.

A row of blocks is computed by vector-Jacobian products with orthonormal u_1 .. u_d of the output's d features:

    I_ts^2 = sum_i |u_i^T d y_t / d x_s|^2

With p < d random probes, (d / p) times the sum over them is an unbiased estimate (Hutchinson 1990, with orthogonal
probes). The variance of their mean is s^2 / p (1 - p / d), as for a sample without replacement; with p = d the map is
exact. Time is p q products for q outputs, each with a copy of the sequence; p is at least `LEAST`, and otherwise chosen
so that these copies have at most `WORK` tokens. Memory is that of a layer on `TOKENS` tokens.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.core.mask import Mask
from xformer.core.memory import KeysValues
from xformer.inspection.attention_calls import LayerCall

WORK = 2**18
"""The maximum number of tokens in all vector-Jacobian products of a sequence; beyond it fewer probes are used."""
LEAST = 2
"""The minimum number of probes of an output token."""
TOKENS = 8192
"""The number of tokens in all copies of one pass."""
SEED = 0


@dataclass(frozen=True)
class InfluenceMap:
    """How much one layer's outputs change with its inputs; not attention weights.

    Attributes:
        slot: the slot of the mixer, by its configuration key.
        layer: the index of the layer in its stack.
        variant: the class of the variant.
        influence: |d y_t / d x_s|_F for each sequence, one map for all heads.
        error: the standard error of the map relative to its norm; 0 if it is exact, infinite if it is not a number.
        weights_error: |W V + c - out| / |out| of an attention that is not linear in its values; None for a mixer
            without queries, keys and values.
    """

    slot: str
    layer: int
    variant: str
    influence: Float[Tensor, "batch 1 query key"]
    error: float = 0.0
    weights_error: float | None = None

    @property
    def values(self) -> Float[Tensor, "batch 1 query key"]:
        """The values to draw."""
        return self.influence

    @property
    def entropy(self) -> None:
        """None, because influence is not a distribution."""
        return


def influence_map(call: LayerCall, *, probes: int | None = None, seed: int = SEED) -> InfluenceMap:
    """The influence map of one layer; probes are the same for all outputs, sequences and layers.

    Args:
        call: the layer's call.
        probes: the number of probes per output; None for as many as `WORK` allows.
        seed: the seed of the probes.
    """
    features = call.x.shape[2]
    probes = max(LEAST, WORK // call.x.shape[1] ** 2) if probes is None else probes
    probes = min(probes, features)
    directions = _orthonormal(features, seed)[:probes].to(call.x)
    samples = torch.stack([_squares(call, row, directions) for row in range(len(call.x))])  # b p q k
    squared = samples.mean(1) * features
    variance = torch.zeros_like(squared)
    if 1 < probes < features:
        variance = features**2 * samples.var(1) / probes * (1 - probes / features)
    of_root = variance / (4 * squared).clamp(min=torch.finfo(squared.dtype).tiny)
    error = float(of_root.sum().sqrt() / squared.sum().sqrt().clamp(min=torch.finfo(squared.dtype).tiny))
    influence = squared.sqrt().nan_to_num(posinf=0.0)[:, None]
    error = error if math.isfinite(error) else math.inf
    return InfluenceMap(call.slot, call.layer, call.mixer.variant, influence, error)


def _squares(
    call: LayerCall, row: int, directions: Float[Tensor, "probes d_model"]
) -> Float[Tensor, "probes query key"]:
    """|u^T d y_t / d x_s|^2 of one sequence, for each probe u and all t and s.

    The sequence is copied along the batch, and each copy probes one output, because rows of a batch do not mix.
    """
    queries, probes = call.x.shape[1], len(directions)
    copies = max(1, min(queries * probes, TOKENS // queries))
    with torch.inference_mode(False), torch.enable_grad():
        x = _copied(call.x, row, copies)
        arguments = {name: _argument(value, row, copies) for name, value in call.arguments.items()}
        memory = arguments.get("memory")
        leaves = [x] if memory is None else [memory.keys, memory.values]
        for leaf in leaves:
            leaf.requires_grad_()
        output = call.mixer(x, **arguments)
        found = []
        for first in range(0, queries * probes, copies):
            index = torch.arange(first, min(first + copies, queries * probes), device=x.device)
            probe = torch.zeros_like(output)
            probe[index - first, index % queries] = directions[index // queries]
            gradients = torch.autograd.grad(output, leaves, probe, retain_graph=True, allow_unused=True)
            parts = [_by_token(each) for each in gradients if each is not None]
            found.append(torch.stack(parts).sum(0)[: len(index)])
    return torch.cat(found).detach().view(probes, queries, -1)


def _by_token(gradient: Tensor) -> Float[Tensor, "copies key"]:
    """The squared gradient (copies ... key features), summed over all dimensions except copies and keys."""
    squares = gradient.square().sum(-1)
    return squares if squares.ndim == 2 else squares.sum(1)


def _argument(value: Any, row: int, copies: int) -> Any:
    """Expand a mask or a memory of one sequence to all its copies; return other arguments unchanged."""
    if isinstance(value, Mask):
        queries = _row(value.query_positions, row)
        keys = queries if value.aligned else _row(value.key_positions, row)
        padding = None if value.key_padding is None else _copied(value.key_padding, row, copies)
        return replace(value, query_positions=queries, key_positions=keys, key_padding=padding)
    if isinstance(value, KeysValues):
        padding = None if value.padding_mask is None else _copied(value.padding_mask, row, copies)
        keys, values = (_copied(each, row, copies) for each in (value.keys, value.values))
        return KeysValues(keys, values, _row(value.positions, row), padding)
    return value


def _copied(tensor: Tensor, row: int, copies: int) -> Tensor:
    return _row(tensor, row).expand(copies, *tensor.shape[1:]).clone()


def _row(tensor: Tensor, row: int) -> Tensor:
    """One sequence's row of a tensor that all rows share or that has a row for each."""
    return tensor.detach() if len(tensor) == 1 else tensor.detach()[row : row + 1]


def _orthonormal(features: int, seed: int) -> Float[Tensor, "features features"]:
    """Orthonormal rows, uniformly distributed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(features, features, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(drawn)
    directions: Tensor = (q * r.diagonal().sign()).mT
    return directions

"""Normalisation layers of a block."""

from typing import Literal

from torch import nn

NormLayer = Literal["layer", "rms"]
_EPSILON = 1e-5


def norm_layer(name: NormLayer, d_model: int) -> nn.Module:
    """Layer norm (Ba et al. 2016), or RMS norm (Zhang & Sennrich 2019), which does not centre and has no bias."""
    return nn.RMSNorm(d_model, eps=_EPSILON) if name == "rms" else nn.LayerNorm(d_model, eps=_EPSILON)

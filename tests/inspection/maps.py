"""Attention maps of random scores, influence, and tokens that a page, a picture or a file must not take for its own."""

import torch

from xformer.inspection.attention_maps import AttentionMap
from xformer.inspection.influence_maps import InfluenceMap
from xformer.inspection.model_input import Axis

NASTY = ["<script>alert(1)</script>", "$x$", "$", "_{", "漢", "a\\b", "&amp;", '"']


def attention_map(queries: int, keys: int, heads: int = 3, layer: int = 0, slot: str = "attention") -> AttentionMap:
    generator = torch.Generator().manual_seed(layer)
    scores = 3 * torch.randn(1, heads, queries, keys, generator=generator)
    return AttentionMap(slot, layer, "Full", scores.softmax(-1))


def influence(length: int, layer: int = 0, slot: str = "attention", weights_error: float | None = None) -> InfluenceMap:
    found = torch.rand(1, 1, length, length, generator=torch.Generator().manual_seed(layer)).tril()
    return InfluenceMap(slot, layer, "Mamba2", 40 * found, 0.02, weights_error)


def axis(length: int) -> Axis:
    return Axis("input", [NASTY[index % len(NASTY)] for index in range(length)])

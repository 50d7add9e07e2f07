"""A hybrid's layers: which entry makes which, and what equal entries know of each other."""

from dataclasses import replace
from functools import partial

import pytest

from xformer.attention.base import AttentionContext, AttentionFactory
from xformer.attention.full import Full
from xformer.attention.hybrid import LayerEntry, hybrid
from xformer.attention.linformer import Linformer
from xformer.attention.local import Local
from xformer.errors import IncompatibleError
from xformer.position.base import Position, PositionContext, PositionFactory


def entry(option: str, attention: AttentionFactory, position: PositionFactory | None = None) -> LayerEntry:
    scheme = None if position is None else "rotary"
    return LayerEntry(name=option, attention=attention, position=position, option=option, position_option=scheme)


LOCAL = entry("local", partial(Local, window=3))
FULL = entry("full", Full, Position)
LINFORMER = entry("linformer", partial(Linformer, rank=2, sharing="layerwise", projection="learned"))


def context(layer: int, *, causal: bool = False) -> AttentionContext:
    return AttentionContext(2, 4, 8, 8, causal, layer=layer)


def test_entries_are_repeated_over_the_depth() -> None:
    made = [hybrid(context(layer), layers=[LOCAL, LOCAL, FULL]) for layer in range(7)]
    assert [type(each) for each in made] == [Local, Local, Full, Local, Local, Full, Local]
    assert [each.context.first for each in made] == [0, 0, 2, 0, 0, 2, 0]
    assert [each.context.layer for each in made] == list(range(7))
    assert [each.layer_position is None for each in made[:3]] == [True, True, False]


def test_a_layer_knows_the_path_of_its_entry() -> None:
    made = [hybrid(replace(context(layer), path="decoder_attention"), layers=[LOCAL, FULL]) for layer in range(4)]
    paths = ["decoder_attention.layers[0].local", "decoder_attention.layers[1].full"]
    assert [each.context.path for each in made] == paths * 2
    assert made[1].layer_position is not None
    scheme = made[1].layer_position(PositionContext(8, 2, 4, 1, 8, False))
    assert scheme.context.path == "decoder_attention.layers[1].full.position.rotary"


def test_a_layer_that_borrows_does_so_from_the_first_of_its_kind() -> None:
    first, later = (hybrid(context(layer), layers=[FULL, LINFORMER]) for layer in (1, 3))
    assert isinstance(first, Linformer)
    assert isinstance(later, Linformer)
    assert first.project_key is not None
    assert later.project_key is None
    later.share_with(first)
    assert later.project_key is first.project_key


def test_a_layer_that_cannot_play_its_role_is_refused() -> None:
    hybrid(context(0, causal=True), layers=[FULL, LINFORMER])
    with pytest.raises(IncompatibleError, match="Linformer cannot do CAUSAL"):
        hybrid(context(1, causal=True), layers=[FULL, LINFORMER])

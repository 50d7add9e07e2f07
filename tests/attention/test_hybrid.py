"""A hybrid's layers: which entry makes which, and what equal entries know of each other."""

from functools import partial

import pytest

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.hybrid import LayerEntry, hybrid
from xformer.attention.linformer import Linformer
from xformer.attention.local import Local
from xformer.errors import IncompatibleError
from xformer.position.base import Position

LOCAL = LayerEntry(name="local", attention=partial(Local, window=3), position=None)
FULL = LayerEntry(name="full", attention=Full, position=Position)
LINFORMER = LayerEntry(
    name="linformer", attention=partial(Linformer, rank=2, sharing="layerwise", projection="learned"), position=None
)


def context(layer: int, *, causal: bool = False) -> AttentionContext:
    return AttentionContext(2, 4, 8, 8, causal, layer=layer)


def test_entries_are_repeated_over_the_depth() -> None:
    made = [hybrid(context(layer), layers=[LOCAL, LOCAL, FULL]) for layer in range(7)]
    assert [type(each) for each in made] == [Local, Local, Full, Local, Local, Full, Local]
    assert [each.context.first for each in made] == [0, 0, 2, 0, 0, 2, 0]
    assert [each.context.layer for each in made] == list(range(7))
    assert [each.layer_position for each in made[:3]] == [None, None, Position]


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

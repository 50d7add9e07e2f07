"""An entry has a label that tells it from those that are alike."""

from xformer.benchmark.entries import labelled
from xformer.benchmark.settings import settings

LOCAL = "variants=[{attention: local, window: 4}, {attention: local, window: 8}, {attention: full}]"


def test_a_label_tells_alike_variants_apart_by_what_differs() -> None:
    names = [name for name, _ in labelled(settings("attention", [LOCAL], quick=False), "variants")]
    assert names == ["local window=4", "local window=8", "full"]
    same = LOCAL.replace("local, window: 8", "local, window: 4, position: alibi")
    names = [name for name, _ in labelled(settings("attention", [same], quick=False), "variants")]
    assert names == ["local", "local+alibi", "full"]

"""What would compute different things is not compared."""

import pytest

from xformer.benchmark.settings import settings
from xformer.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("attention: performer, features: 16, length: 8, against: performer-pytorch", "features: 256"),
        ("attention: performer, kernel: relu, length: 8, against: performer-pytorch", "kernel: exp"),
        ("attention: local, window: 4, length: 8, against: local-attention", "window: 64"),
        ("attention: full, length: 8, against: local-attention", "attention: local"),
        ("attention: local, window: 64, position: alibi, length: 8, against: local-attention", "position: none"),
    ],
)
def test_a_pair_that_would_compute_different_things_is_refused(entry: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"which is built with {words}, .* different things"):
        settings("pairs", [f"pairs=[{{{entry}}}]"], quick=False)

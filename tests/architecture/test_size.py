"""The dimensions: heads divide the width, or the widths that would do are named."""

import pytest

from xformer.architecture.size import Size
from xformer.errors import ConfigError


def test_heads_share_the_width() -> None:
    assert Size(d_model=24, layers=1, heads=3, feed_forward=8).head_dim == 8


@pytest.mark.parametrize(
    ("d_model", "heads", "works"), [(10, 4, "8 or 12"), (3, 4, "4"), (63, 8, "56 or 64"), (1, 2, "2")]
)
def test_a_width_that_heads_do_not_divide_is_refused_with_its_neighbours(d_model: int, heads: int, works: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Size(d_model=d_model, layers=1, heads=heads, feed_forward=8)
    assert str(caught.value) == (
        f"size.d_model={d_model} is not divisible by size.heads={heads}; size.d_model={works} would work."
    )
    for width in works.split(" or "):
        Size(d_model=int(width), layers=1, heads=heads, feed_forward=8)

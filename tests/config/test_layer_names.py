"""Names of hybrids: short, and different where the layers are."""

import pytest

from xformer.config.layer_names import shown_choice, shown_overrides, with_layers

ROTARY = "hybrid(full(position=rotary(base=500)))"


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        (["local", "local", "local", "full"], "hybrid(3xlocal+full)"),
        (["local", "full"] * 4, "hybrid(local+full)"),
        (["full"], "hybrid(full)"),
        ([{"local": {"window": 8}}, "full"], "hybrid(local(window=8)+full)"),
        ([{"local": {"window": 64}}, {"full": None}], "hybrid(local+full)"),
        (["local", {"full": {"position": "none"}}], "hybrid(local+full(position=none))"),
        ([{"full": {"position": {"rotary": {"base": 500, "fraction": 1.0}}}}], ROTARY),
        ([{"performer": {"redraw_interval": None}}], "hybrid(performer(redraw_interval=null))"),
        ([{"gone": {"size": 3}}], "hybrid(gone(size=3))"),
        (None, "hybrid"),
    ],
)  # fmt: skip
def test_equal_neighbours_are_counted_and_what_differs_from_the_file_is_named(layers: object, name: str) -> None:
    assert with_layers("hybrid", layers) == name
    if layers is not None:
        assert with_layers("hybrid", str(layers)) == name
        assert shown_choice({"attention": "hybrid", "attention.layers": str(layers)}, "attention") == name


def test_other_options_keep_their_names() -> None:
    assert shown_choice({"attention": "full", "size": "tiny"}, "attention") == "full"
    assert shown_choice({"size": "tiny", "size.layers": 4}, "size") == "tiny"


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["seed=1", "attention=hybrid", "attention.layers=[local,full]"], ["seed=1", "attention=hybrid(local+full)"]),
        (["attention.layers=[local,full]"], ["attention=hybrid(local+full)"]),
        (["attention=hybrid"], ["attention=hybrid"]),
        (
            ["attention@decoder_attention=hybrid", "decoder_attention.layers=[full]"],
            ["attention@decoder_attention=hybrid(full)"],
        ),
    ],
)
def test_a_run_is_named_by_its_layers(overrides: list[str], shown: list[str]) -> None:
    layers = {"attention": ("hybrid", ["local", "full"]), "decoder_attention": ("hybrid", ["full"])}
    assert shown_overrides(overrides, layers) == shown

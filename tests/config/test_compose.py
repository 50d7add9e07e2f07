"""A command line composed in this process: the configuration, or one sentence."""

import pytest

from xformer.config.compose import cell_directory_name, compose_config, explain_error
from xformer.errors import ConfigError


def test_what_is_typed_wins() -> None:
    config = compose_config(["attention=linformer", "attention.rank=8"])
    assert config.attention.rank == 8
    assert "hydra" not in config


def test_hydras_own_node_is_there_where_it_is_wanted() -> None:
    assert compose_config([], with_hydra=True).hydra.runtime.choices["attention"] == "full"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("attention=ful", r"^attention=ful is not an option; did you mean full\?"),
        ("atention.rank=3", r"^atention\.rank is not a key of the configuration; did you mean attention\.rank\?"),
        ("attention.rnk=3", r"^attention\.rnk is not a key of the configuration; did you mean attention\.rank\?"),
        (
            "attention.layers=[a]",
            r"^attention\.layers is not a key of the configuration; it is a key of attention=hybrid\.$",
        ),
        (
            "decoder_attention.layers=[gla,full]",
            r"^decoder_attention\.layers is not a key of .*; it is a key of attention@decoder_attention=hybrid\.$",
        ),
        (
            "decoder_attention.windw=2",
            r"^decoder_attention\.windw is not a .* did you mean decoder_attention\.window\?",
        ),
        (
            "data.loader.btch_size=2",
            r"^data\.loader\.btch_size is not a key .* did you mean data\.loader\.batch_size\?",
        ),
        ("seed", r"^seed is not an override .*; write key=value\.$"),
        ("seed=[", r"^seed=\[ cannot be read .* is quoted: "),
        ("data=null", r"^data=null is not an option; "),
        ("seed=1,2", r"python train\.py -m seed=1,2 runs each of them\."),
    ],
)
def test_what_hydra_refuses_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        compose_config([override])
    assert "\n" not in str(refused.value)


def test_an_error_of_ours_explains_itself() -> None:
    assert explain_error(ConfigError("seed=-1 must be at least 0.")) == "seed=-1 must be at least 0."


def test_a_cell_is_named_by_what_can_change_its_result() -> None:
    assert cell_directory_name("attention=full,seed=1,logger=csv") == "attention=full,seed=1"
    assert cell_directory_name("a.b=" + "x" * 300) == cell_directory_name("a.b=" + "x" * 300)
    assert len(cell_directory_name("a.b=" + "x" * 300)) <= 200

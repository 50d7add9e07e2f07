"""The groups of `conf/`, their options and slots, and how they are spelt."""

import pytest

from xformer.config.groups import (
    CONF,
    command_line_key,
    defaults,
    groups,
    load_option,
    nearest,
    option_nodes,
    slot_default,
    slots,
)


def test_every_group_of_the_axes_is_there() -> None:
    axes = "attention position architecture size task loss data tokenizer optimizer schedule trainer callbacks logger"
    assert set(groups()) == {*axes.split(), "match", "experiment", "debug"}


def test_the_installed_package_finds_its_configuration() -> None:
    assert (CONF / "train.yaml").is_file()
    assert CONF.parent.name == "xformer"


def test_nearest_lists_what_is_valid() -> None:
    assert nearest("linfomer", ["full", "linformer"]) == "did you mean linformer? Valid: full, linformer."
    assert nearest("zzz", ["full"]) == "Valid: full."
    assert (
        nearest("rnk", ["rank", "x"], "attention.")
        == "did you mean attention.rank? Valid: attention.rank, attention.x."
    )
    assert nearest("zzz", []) == "it has none."
    assert nearest("key7", [f"key{i}x" for i in range(30)]) == "did you mean key7x?"


def test_a_slot_is_one_more_choice_from_a_group() -> None:
    assert slots()["cross_attention"] == "attention"
    assert defaults()["cross_attention"] == ("attention", "full")
    assert (command_line_key("cross_attention"), command_line_key("attention")) == (
        "attention@cross_attention",
        "attention",
    )


def test_a_slot_holds_what_another_group_chose_where_its_default_says_so() -> None:
    assert slot_default("decoder_position", {"position": "alibi"}) == "alibi"
    assert slot_default("decoder_attention", {"attention": "local"}) == "full"


@pytest.mark.parametrize("group", ["attention", "position", "task"])
def test_every_option_has_a_node(group: str) -> None:
    assert [option for option, _ in option_nodes(group)] == groups()[group]


def test_an_option_that_extends_another_holds_what_that_holds() -> None:
    assert {*load_option("data", "imdb")} > {"_target_"}
    assert load_option("data", "listops_lra")._target_ == load_option("data", "listops")._target_

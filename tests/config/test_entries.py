"""The entries of a hybrid: read, written out, built, and refused by entry and layer before data is loaded."""

from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

from tests.conftest import ComposeJob
from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence import dispatch
from xformer.attention.local import Local
from xformer.config.compatibility import check_compatibility
from xformer.config.entries import read_layers
from xformer.config.plan import Plan
from xformer.config.validate import instantiate_node, validate
from xformer.errors import ConfigError, IncompatibleError
from xformer.position.rotary import Rotary


def compose(compose_job: ComposeJob, *overrides: str) -> Any:
    job = compose_job("attention=hybrid", "size.layers=4", *overrides)
    validate(job.config)
    check_compatibility(job.config, job.choices)
    return job.config


def test_entries_are_written_out_with_every_hyper_parameter(compose_job: ComposeJob) -> None:
    entries = "attention.layers=[local,{local:{window:8}},{full:{position:{rotary:{base:500}}}},{full:{position:none}}]"
    config = compose(compose_job, entries, "position=rotary")
    expected = [
        {"local": {"window": 64}},
        {"local": {"window": 8}},
        {"full": {"position": {"rotary": {"base": 500, "fraction": 1.0}}}},
        {"full": {"position": "none"}},
    ]
    assert OmegaConf.to_container(config.attention.layers) == expected
    validate(config)  # and again, as a stored configuration is
    assert OmegaConf.to_container(config.attention.layers) == expected
    layers = read_layers(expected, "attention.layers")
    assert [layer.variant.__name__ for layer in layers] == ["Local", "Local", "Full", "Full"]
    assert [layer.scheme for layer in layers][2] is Rotary


def test_a_node_builds_what_its_entries_say(compose_job: ComposeJob) -> None:
    config = compose(compose_job, "attention.layers=[{local:{window:5}},full]")
    for node in (config.attention, config.architecture):
        build = instantiate_node(node)
        build = build.keywords.get("attention", build)
        made = [build(AttentionContext(2, 4, 8, 8, False, layer=layer)) for layer in range(4)]
        assert [type(each).__name__ for each in made] == ["Local", "Full"] * 2
        assert isinstance(made[2], Local)
        assert made[2].window == 5


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("[locl,full]", "attention.layers[0]=locl is not an option; did you mean local?"),
        ("[full,{local:{windw:8}}]", "attention.layers[1].local.windw is not a parameter of .*; did you mean window?"),
        ("[full,{local:{window:-1}}]", "attention.layers[1].local.window=-1 must be at least 0"),
        ("[full,hybrid]", "attention.layers[1]=hybrid is made of other options and cannot be one of its own layers"),
        ("[{hybrid:{layers:[full]}}]", "attention.layers[0]=hybrid is made of other options"),
        ("[{full:{position:null}},gla]", "attention.layers[0].full.position=null is not an option: write none for no"),
        ("[]", "attention.layers=[] must be a list of options, such as [local,local,full]"),
        ("full", "attention.layers=full must be a list of options"),
        ("[3]", "attention.layers[0]=3 is not an option: write the option's name, or {name:"),
        ("[{full:{position:rotry}}]", "attention.layers[0].full.position=rotry is not an option; did you mean rotary?"),
        ("[{full:{position:{alibi:{slope:1}}}}]", "attention.layers[0].full.position.alibi.slope is not a parameter"),
        ("[full,full,full,full,local]", "attention.layers has 5 entries and size.layers=4"),
    ],
)
def test_a_bad_entry_is_refused_with_what_would_work(layers: str, words: str, compose_job: ComposeJob) -> None:
    escaped = "".join(f"\\{letter}" if letter in "[]{}()?" else letter for letter in words)
    with pytest.raises(ConfigError, match=escaped):
        compose(compose_job, f"attention.layers={layers}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["attention.layers=[full,linformer]", "position=rotary"],
            [
                "attention.layers[1]=linformer (layers 1, 3) does not go with position=rotary",
                "full, local",
                "{linformer: {position: none}}",
            ],
        ),
        (
            ["attention.layers=[full,full,linformer]", "architecture=decoder"],
            ["attention.layers[2]=linformer (layer 2) does not go with architecture=decoder", "hide the future"],
        ),
        (
            ["attention.layers=[full,{additive:{position:rotary}}]"],
            ["attention.layers[1]=additive (layers 1, 3) does not go with position=rotary"],
        ),
        (
            ["attention.layers=[full,{full:{position:learned}}]"],
            ["attention.layers[1].full.position=learned acts on the embeddings"],
        ),
        (
            ["attention.layers=[full,{full:{position:none}}]", "position=sinusoidal"],
            ["attention.layers[1].full.position=none changes nothing with position=sinusoidal"],
        ),
        (
            ["attention.layers=[{full:{position:none}}]", "position=t5"],
            ["position=t5 is used by no layer"],
        ),
        (
            [
                "task=seq2seq",
                "attention=full",
                "attention@cross_attention=hybrid",
                "cross_attention.layers=[local,full]",
            ],
            ["cross_attention.layers[0]=local (layers 0, 2) does not go with architecture=encoder_decoder"],
        ),
        (
            [
                "task=seq2seq",
                "attention=full",
                "attention@cross_attention=hybrid",
                "cross_attention.layers=[{full:{position:alibi}}]",
            ],
            ["cross_attention.layers[0].full.position=alibi: cross attention has no positions"],
        ),
    ],
)
def test_each_layer_is_checked(overrides: list[str], words: list[str], compose_job: ComposeJob) -> None:
    with pytest.raises(IncompatibleError) as caught:
        compose(compose_job, *overrides)
    for word in words:
        assert word in str(caught.value)


def test_layers_that_are_one_block_cannot_differ(compose_job: ComposeJob) -> None:
    compose(compose_job, "attention.layers=[local]", "architecture.share_layers=true")
    with pytest.raises(ConfigError, match=r"share_layers=true makes all layers one block, and attention.layers has"):
        compose(compose_job, "attention.layers=[local,full]", "architecture.share_layers=true")


@pytest.mark.parametrize(
    "overrides",
    [
        ["attention.layers=[local,full]"],
        ["attention.layers=[{linformer:{position:none}},full]", "position=rotary"],
        ["attention.layers=[local,{full:{position:none}}]", "position=alibi", "architecture=decoder"],
        ["attention.layers=[full,full,full,local]", "architecture.key_value_heads=1"],
    ],
)
def test_what_every_layer_can_do_is_accepted(overrides: list[str], compose_job: ComposeJob) -> None:
    compose(compose_job, *overrides)


@pytest.mark.parametrize(
    ("typed", "stored", "overrides"),
    [
        ("gla,full,gla,full", "gla,full", []),
        ("gla,full,gla", "gla,full", ["size.layers=3"]),
        ("gla,full,gla", "gla,full,gla", []),
        ("gla,full", "gla,full", []),
        ("full,{full:{}},{full:null}", "full", []),
        ("full,{full:{position:none}}", "full,{full:{position:none}}", ["position=rotary"]),
        ("full,gla,full", "full,gla,full", ["size.layers=3", "match=parameters", "match.by=size.layers"]),
        ("full,gla,full,gla", "full,gla", ["match=parameters", "match.by=size.layers"]),
    ],
)
def test_equal_layers_are_one_configuration(
    typed: str, stored: str, overrides: list[str], compose_job: ComposeJob
) -> None:
    small = ["attention=hybrid", "architecture=decoder", "task=language_modeling", "size.layers=4", *overrides]
    job, short = (compose_job(*small, f"attention.layers=[{entries}]") for entries in (typed, stored))
    for each in (job, short):
        Plan.read(each.config, each.choices)
    assert job.config == short.config
    assert (
        len(job.config.attention.layers)
        == len(short.config.attention.layers)
        == stored.count("full") + stored.count("gla")
    )


def test_both_stacks_of_an_encoder_decoder_are_shortened(compose_job: ComposeJob) -> None:
    slots = ["attention", "decoder_attention", "cross_attention"]
    chosen = [override for slot in slots for override in (f"attention@{slot}=hybrid", f"{slot}.layers=[full,full]")]
    job = compose_job("task=seq2seq", "size.layers=2", "attention=hybrid", *chosen[1:])
    Plan.read(job.config, job.choices)
    assert [list(job.config[slot].layers) for slot in slots] == [["full"]] * 3
    assert job.config.architecture.decoder_attention.layers == ["full"]


HYBRID = ["attention=hybrid", "architecture=decoder", "size=tiny", "size.layers=2"]
SEQ2SEQ = ["task=seq2seq", "architecture=encoder_decoder", "attention=full"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attention.layers=[full,{gla:{expand_key:0.3}}]"], "attention.layers[1].gla.expand_key=0.3 of the"),
        (["attention.layers=[{gla:{kernel:fla}}]"], "use attention.layers[0].gla.kernel=torch"),
        (["attention.layers=[{mamba2:{groups:3}}]"], "attention.layers[0].mamba2.groups=3 does not"),
        (["attention.layers=[{mamba2:{step_low:9.5}}]"], "attention.layers[0].mamba2.step_low=9.5 is more than"),
        (["attention.layers=[{bigbird:{window_blocks:2}}]"], "attention.layers[0].bigbird.window_blocks=2 has"),
        (["attention.layers=[{sparse:{pattern:fixed,summary:99}}]"], "attention.layers[0].sparse.summary=99 does"),
        (["attention.layers=[{sparse:{heads:split}}]", "size.heads=1"], "attention.layers[0].sparse.heads=split needs"),
        (
            ["attention.layers=[full,{full:{position:{rotary:{fraction:0.01}}}}]"],
            "attention.layers[1].full.position.rotary.fraction=0.01 of",
        ),
        (["position=t5", "position.buckets=3"], "position.buckets=3 cannot"),
        (
            [*SEQ2SEQ, "attention@decoder_attention=gla", "decoder_attention.expand_key=0.3"],
            "decoder_attention.expand_key=0.3 of the",
        ),
        (
            [*SEQ2SEQ, "attention@decoder_attention=hybrid", "decoder_attention.layers=[{gla:{expand_key:0.3}}]"],
            "decoder_attention.layers[0].gla.expand_key=0.3 of the",
        ),
        (
            [*SEQ2SEQ, "position@decoder_position=t5", "decoder_position.buckets=3"],
            "decoder_position.buckets=3 cannot",
        ),
    ],
)
def test_a_value_that_a_class_refuses_is_named_by_its_path(
    overrides: list[str], words: str, compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    config = compose_job(*HYBRID, *overrides).config
    validate(config)
    build = instantiate_node(config.architecture)
    with pytest.raises(ConfigError) as caught:
        build(lambda width: nn.Embedding(8, width), 16)
    assert words in str(caught.value)


def test_a_warning_names_the_first_layer_of_its_kind(compose_job: ComposeJob, caplog: pytest.LogCaptureFixture) -> None:
    config = compose(compose_job, "attention.layers=[full,{linformer:{rank:99}}]", "position=none")
    instantiate_node(config.architecture)(lambda width: nn.Embedding(8, width), 16)
    assert [text.partition(" ")[0] for text in caplog.messages] == ["attention.layers[1].linformer.rank=99"]

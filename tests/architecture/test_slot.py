"""Each slot is checked for its own needs, and a choice for a slot that is not there is no silent baseline."""

import pytest

from tests.conftest import ComposeJob
from xformer.config.compatibility import check_compatibility, option_classes
from xformer.config.groups import CONF, slots
from xformer.config.validate import validate
from xformer.errors import ConfigError, IncompatibleError

PAIR = "architecture=encoder_decoder"


def test_every_slot_is_a_key_of_the_configuration_and_takes_a_known_scheme(compose_job: ComposeJob) -> None:
    assert slots() == {
        "decoder_attention": "attention",
        "cross_attention": "attention",
        "decoder_position": "position",
    }
    config = compose_job().config
    for name, architecture in option_classes("architecture"):
        assert {*architecture.slots, *architecture.positions()} <= set(config), name
    assert (CONF / "architecture" / "encoder_decoder.yaml").is_file()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["attention@decoder_attention=linformer"],
            [
                "decoder_attention=linformer does not go with architecture=encoder_decoder",
                "no mask can hide the future",
            ],
        ),
        (
            ["attention@cross_attention=local"],
            ["cross_attention=local does not go with architecture=encoder_decoder", "cross_attention=linformer"],
        ),
        (
            ["attention=linformer", "position=rotary"],
            ["attention=linformer does not go with position=rotary", "attention=full"],
        ),
        (
            ["attention@decoder_attention=performer", "position@decoder_position=relative"],
            ["decoder_attention=performer does not go with position@decoder_position=relative"],
        ),
    ],
)
def test_a_refusal_names_the_slot(overrides: list[str], words: list[str], compose_job: ComposeJob) -> None:
    job = compose_job("task=seq2seq", *overrides)
    with pytest.raises(IncompatibleError) as caught:
        check_compatibility(job.config, job.choices)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["attention=linformer"],
        ["attention=linformer", "position=alibi"],
        ["attention=linformer", "position@decoder_position=rotary"],
        ["attention@cross_attention=performer", "position=relative"],
        ["attention@decoder_attention=sparse", "position@decoder_position=t5"],
    ],
)
def test_what_another_slot_needs_does_not_matter(overrides: list[str], compose_job: ComposeJob) -> None:
    for task in (["task=seq2seq"], [PAIR]):
        job = compose_job(*task, *overrides)
        validate(job.config)
        check_compatibility(job.config, job.choices)


@pytest.mark.parametrize("override", ["attention@decoder_attention=local", "position@decoder_position=alibi"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_a_slot_that_is_not_there_is_refused(override: str, architecture: str, compose_job: ComposeJob) -> None:
    job = compose_job(f"architecture={architecture}", override)
    with pytest.raises(IncompatibleError, match=f"{override} does not go with architecture={architecture}.* {PAIR}"):
        check_compatibility(job.config, job.choices)
    job = compose_job(f"architecture={architecture}", "position=alibi")
    check_compatibility(job.config, job.choices)


def test_a_key_of_a_slot_that_is_not_there_is_refused(compose_job: ComposeJob) -> None:
    override = "decoder_position.buckets=8"
    job = compose_job("architecture=encoder", "position=t5", override)
    with pytest.raises(IncompatibleError, match=f"{override} does not go with architecture=encoder.* {PAIR}"):
        check_compatibility(job.config, job.choices)
    job = compose_job("task=seq2seq", "position=t5", override)
    check_compatibility(job.config, job.choices)


def test_a_slot_set_like_a_value_is_told_how_it_is_spelt(compose_job: ComposeJob) -> None:
    with pytest.raises(ConfigError, match="write attention@decoder_attention=local"):
        validate(compose_job("decoder_attention=local").config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=seq2seq", "architecture=decoder"], "while it reads another; what would work: architecture=encoder_dec"),
        (["task=language_modeling", PAIR], "architecture=encoder_decoder does not go with task=language_modeling"),
        (["task=seq2seq", "data=listops"], "Seq2SeqBatch is needed; what would work: .*data=transduction"),
    ],
)
def test_a_task_that_needs_another_architecture_says_so(
    overrides: list[str], words: str, compose_job: ComposeJob
) -> None:
    job = compose_job(*overrides)
    with pytest.raises(IncompatibleError, match=words):
        check_compatibility(job.config, job.choices)


def test_the_decoders_positions_follow_the_encoders_unless_chosen(compose_job: ComposeJob) -> None:
    assert compose_job(PAIR, "position=t5").choices["decoder_position"] == "t5"
    chosen = compose_job(PAIR, "position=t5", "position@decoder_position=rotary").choices
    assert (chosen["position"], chosen["decoder_position"]) == ("t5", "rotary")

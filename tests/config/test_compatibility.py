"""What does not go together is refused, with the pair, the reason and what would work."""

import pytest

from tests.conftest import ComposeJob
from xformer.config.compatibility import MEANINGS, check_compatibility
from xformer.config.validate import groups, target, validate
from xformer.errors import IncompatibleError


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["task=language_modeling", "attention=linformer"],
            ["attention=linformer does not go with architecture=decoder", "mixes all positions", "attention=full"],
        ),
        (
            ["task=language_modeling", "architecture=encoder"],
            ["architecture=encoder does not go with task=language_modeling", "predict", "architecture=decoder"],
        ),
        (
            ["task=language_modeling", "data=listops"],
            ["data=listops does not go with task=language_modeling", "LanguageModelingBatch", "data=text"],
        ),
        (
            ["data=text"],
            ["data=text does not go with task=classification", "ClassificationBatch", "data=digits", "data=listops"],
        ),
    ],
)
def test_a_refusal_names_pair_reason_and_way_out(
    overrides: list[str], words: list[str], compose_job: ComposeJob
) -> None:
    job = compose_job(*overrides)
    with pytest.raises(IncompatibleError) as caught:
        check_compatibility(job.config, job.choices)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("attention", groups()["attention"])
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
@pytest.mark.parametrize("position", groups()["position"])
def test_what_is_declared_decides(attention: str, architecture: str, position: str, compose_job: ComposeJob) -> None:
    job = compose_job(f"attention={attention}", f"architecture={architecture}", f"position={position}")
    validate(job.config)
    slot = target(job.config.architecture).slots["attention"]  # type: ignore[attr-defined]
    needs = slot.needs | target(job.config.position).needs  # type: ignore[attr-defined]
    needs |= next(c for c in MEANINGS if c.name == "PADDING")
    if needs in target(job.config.attention).provides:  # type: ignore[attr-defined]
        check_compatibility(job.config, job.choices)
    else:
        with pytest.raises(IncompatibleError, match=f"attention={attention} does not go with"):
            check_compatibility(job.config, job.choices)


@pytest.mark.parametrize(
    ("overrides", "works"),
    [(["tokenizer=bpe"], "data=text"), (["task=language_modeling", "loss=focal"], "task=classification")],
)
def test_a_choice_that_nobody_takes_is_refused(overrides: list[str], works: str, compose_job: ComposeJob) -> None:
    job = compose_job(*overrides)
    with pytest.raises(IncompatibleError, match=f"{overrides[-1]} does not go with .*what would work: .*{works}"):
        check_compatibility(job.config, job.choices)


def test_a_choice_of_the_data_s_own_is_no_choice_that_nobody_takes(compose_job: ComposeJob) -> None:
    for overrides in (["data=text_classification"], ["data=imdb"], ["data=text", "task=language_modeling"]):
        job = compose_job(*overrides)
        check_compatibility(job.config, job.choices)

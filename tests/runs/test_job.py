"""What a study gives to its options."""

from collections.abc import Callable
from typing import Any

import pytest

from xformer.errors import ConfigError
from xformer.runs.job import Job
from xformer.runs.summary import TuningRole


def given(compose_job: Callable[..., Job], *overrides: str, **settings: dict[str, Any]) -> Job:
    job = compose_job(*overrides)
    job.config.study = {"question": "q", "settings": {f"attention={option}": s for option, s in settings.items()}}
    job.apply_study_settings()
    return job


def test_an_option_is_given_its_settings_where_it_is_chosen(compose_job: Callable[..., Job]) -> None:
    assert given(compose_job, "attention=local", local={"window": 8}).config.attention.window == 8
    assert "window" not in given(compose_job, "attention=full", local={"window": 8}).config.attention


def test_what_was_typed_wins(compose_job: Callable[..., Job]) -> None:
    job = given(compose_job, "attention=local", "attention.window=4", local={"window": 8})
    assert job.config.attention.window == 4


def test_a_key_that_the_option_has_not_is_refused(compose_job: Callable[..., Job]) -> None:
    with pytest.raises(ConfigError, match=r"attention=local\.windw is not a key of .*did you mean window\?"):
        given(compose_job, "attention=local", local={"windw": 8})


def test_a_committed_study_gives_what_its_file_says(compose_job: Callable[..., Job]) -> None:
    assert compose_job("experiment=recall_pairs", "attention=local").config.attention.window == 8
    assert compose_job("experiment=recall_pairs", "attention=performer").config.attention.features == 64


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "study.tune is not applied to this run, which has optimizer.lr of its configuration; "),
        (["optimizer.lr=0.01"], None),
        (["seed=100"], "seed=100 is one of study.tune.seeds: this run is a trial, and is not tested."),
    ],
)
def test_a_run_of_a_study_that_tunes_says_what_it_is(overrides: list[str], told: str | None) -> None:
    block = "+study={question: Which, tune: {optimizer.lr: [0.001, 0.01], seeds: [100]}}"
    job = Job.compose([block, *overrides])
    assert job.tuning == TuningRole(["optimizer.lr"], "val/accuracy", trial="seed=100" in overrides)
    assert (job.tuning_hint or "").startswith(told or "")
    assert (job.tuning_hint is None) is (told is None)
    assert Job.compose(overrides).tuning is None

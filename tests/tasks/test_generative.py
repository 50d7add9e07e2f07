"""What every task that writes promises of its prompts."""

from functools import partial
from typing import Any

import pytest
import torch

from tests.conftest import SMALL, ComposeJob
from xformer.config.groups import groups
from xformer.config.plan import Plan
from xformer.data.spec import DataSpec
from xformer.errors import DataError
from xformer.tasks.generative import Generative

FACTS = DataSpec(vocabulary=12, length=8, classes=3, padding=0, begin=1, end=2)
WRITING = ("language_modeling", "seq2seq")


def built(compose_job: ComposeJob, task: str, *overrides: str) -> Any:
    plan = Plan.of(compose_job(*SMALL, f"task={task}", *overrides).config)
    plan.data.spec = FACTS
    return plan.build_task().eval()


@pytest.mark.parametrize("name", [name for name in groups()["task"] if not name.startswith("image")])
def test_a_task_that_writes_is_known_by_its_class(name: str, compose_job: ComposeJob) -> None:
    assert isinstance(built(compose_job, name), Generative) == (name in WRITING)


@pytest.mark.parametrize(("position", "limit"), [("learned", True), ("rotary", False)])
@pytest.mark.parametrize("name", WRITING)
def test_prompts_up_to_the_longest_are_read_and_no_longer_one(
    name: str, position: str, limit: bool, compose_job: ComposeJob
) -> None:
    task = built(compose_job, name, f"position={position}")
    prompt = partial(torch.full, fill_value=5)
    assert (task.longest_prompt is not None) == limit
    longest = task.longest_prompt if limit else 20
    rows = task.prefixes([prompt((longest,)), prompt((1,))], FACTS, 3)
    assert rows.written.shape == (2, 0)
    with torch.no_grad():
        assert rows.logits().shape == (2, FACTS.vocabulary)
    if limit:
        with pytest.raises(DataError, match=f"has {longest + 1} tokens"):
            task.prefixes([prompt((longest + 1,))], FACTS, 3)


def test_a_continuation_begins_with_its_prompt_and_an_answer_does_not(compose_job: ComposeJob) -> None:
    prompt = torch.tensor([5, 6, 7])
    for name, begins in (("language_modeling", [5, 6, 7]), ("seq2seq", [FACTS.begin])):
        task = built(compose_job, name)
        assert task.prefixes([prompt], FACTS, 2).tokens[0].tolist() == begins
        assert task.continues == (name == "language_modeling")

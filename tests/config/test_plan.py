"""A plan holds every part, loads nothing, and its model depends on the seed."""

from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.plan import Plan
from xformer.data.spec import DataSpec
from xformer.errors import XformerError

FACTS = DataSpec(vocabulary=9, length=8, classes=3)


def test_nothing_is_loaded_until_it_is_asked_for(compose_job: ComposeJob, tmp_path: Path) -> None:
    cache = tmp_path / "empty"
    config = compose_job(*SMALL, *SMALL_LISTOPS).config
    config.cache = str(cache)
    plan = Plan.of(config)
    assert not cache.exists()
    assert plan.data.context.cache == cache
    data = plan.load_data()
    assert data is plan.data
    assert len(data.splits["train"]) == 200
    assert [*cache.iterdir()]


def test_a_model_is_its_seeds(compose_job: ComposeJob) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        plan = Plan.of(compose_job(*SMALL, f"seed={seed}").config)
        plan.data.spec = FACTS
        return [parameter.detach() for parameter in plan.build_task().parameters()]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_the_schedule_keeps_what_its_file_says(compose_job: ComposeJob) -> None:
    """It is no partial of Hydra's own any more, which would check its arguments in every step."""
    plan = Plan.of(compose_job(*SMALL, "schedule=constant", "schedule.warmup_steps=10").config)
    assert [plan.schedule(step, 100) for step in (0, 4, 90)] == pytest.approx([0.1, 0.5, 1.0])


def test_a_value_that_its_class_refuses_is_refused_here(compose_job: ComposeJob) -> None:
    with pytest.raises(XformerError, match=r"size\.d_model=130 is not divisible"):
        Plan.of(compose_job("size.d_model=130").config)

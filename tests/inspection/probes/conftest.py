"""Tasks and examples, as a run has them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.config.plan import Plan
from xformer.data.batch import Batch
from xformer.inspection.probes.base import single_examples
from xformer.tasks.base import Task

Prepared = Callable[..., tuple[Task, list[Batch]]]
TRANSDUCTION = ["task=seq2seq", "data.train_size=64", "data.val_size=32", "data.test_size=32"]
TEXT = ["task=language_modeling", "data.block=24"]
LISTOPS = [*SMALL_LISTOPS, "data.min_length=10", "data.max_length=40", "data.max_depth=3"]


@pytest.fixture
def prepared(compose_job: ComposeJob, tmp_path: Path) -> Prepared:
    """A task with its initial weights and the first validation examples."""

    def make(*overrides: str) -> tuple[Task, list[Batch]]:
        plan = Plan.of(compose_job(*SMALL, *overrides).config)
        data = plan.load_data()
        return plan.build_task().eval(), single_examples(next(iter(data.val_dataloader())), 2)

    return make

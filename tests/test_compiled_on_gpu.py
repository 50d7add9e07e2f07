"""A compiled run on a CUDA device, with and without CUDA graphs, beside an eager one."""

from pathlib import Path
from typing import Any

import pytest
from torch.testing import assert_close

from tests.conftest import ComposeJob
from xformer.runs.open_run import open_run
from xformer.training.run import run

SETTING = [
    "debug=fast",
    "size=tiny",
    "logger=csv",
    "trainer.accelerator=gpu",
    "trainer.enable_progress_bar=false",
    "architecture.dropout=0.0",
    "trainer.max_steps=20",
    "data.batch_size=4",
]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("mode", ["true", "reduce-overhead"])
@pytest.mark.parametrize("task", ["classification", "language_modeling", "seq2seq"])
def test_a_gpu_learns_the_same_compiled(mode: str, task: str, compose_job: ComposeJob, tmp_path: Path) -> None:
    found: list[Any] = []
    for compiled in ("false", mode):
        run(compose_job(*SETTING, f"task={task}", f"compile={compiled}", directory=tmp_path / compiled))
        found.append(open_run(tmp_path / compiled).task.state_dict())
    assert_close(found[1], found[0], rtol=1e-2, atol=1e-3)

"""Commands on a machine that has a CUDA device, as far as the order of calls goes: tensors stay on the processor.

What runs first on a device is found here first: each command begins where nothing has used the device.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMALL, SMALL_LISTOPS, Command, ComposeJob, Trained
from tests.core.fake_cuda import H200, FakeCuda
from xformer.core import devices
from xformer.data.sampling.loader import Loader
from xformer.runs.summary import read_summary
from xformer.training.run import run

# The loader pins memory where there is a device, and torch sees that there is none.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")

TINY = ["rounds=1", "seconds=0", "heads=1", "head_dim=8"]
TINY_MODEL = "model=[task=language_modeling,data.block=16,data.loader.batch_size=2,size=tiny]"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    found = FakeCuda()
    monkeypatch.setattr(devices, "cuda", found)
    monkeypatch.setattr(devices, "default_device", lambda: torch.device("cpu"))
    return found


def test_a_run_and_its_continuation(fake: FakeCuda, compose_job: ComposeJob, tmp_path: Path) -> None:
    typed = [*SMALL, *SMALL_LISTOPS, "hydra.run.dir=x"]
    run(compose_job(*typed, "trainer.max_steps=5", "trainer.val_check_interval=5"))
    summary = read_summary(tmp_path / "run")
    assert (summary.status, summary.error) == ("finished", None)
    assert summary.hardware["cuda"] == [H200]
    fake.states[0] += 5
    run(compose_job(*typed, "trainer.max_steps=10", "trainer.val_check_interval=5", "resume=true"))
    assert read_summary(tmp_path / "run").status == "finished"
    assert fake.states[0].tolist() == [0] * 16  # as the checkpoint had it


def test_the_peak_of_a_run_is_the_device_s(fake: FakeCuda, compose_job: ComposeJob, tmp_path: Path) -> None:
    step = Loader.__iter__

    def used(self: Loader) -> Any:
        fake.use(1 << 40)
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "__iter__", used)
        run(compose_job(*SMALL, *SMALL_LISTOPS))
    assert read_summary(tmp_path / "run").peak_memory_bytes == 1 << 40


@pytest.mark.parametrize(
    "words",
    [
        lambda directory: ("evaluate", directory),
        lambda directory: ("generate", directory, "--prompt", "Every", "--max-new", 3),
        lambda directory: ("attention", directory, "--input", "Every"),
    ],
    ids=["evaluate", "generate", "attention"],
)
def test_a_command_that_opens_a_run(
    words: Callable[[Path], tuple[Any, ...]], fake: FakeCuda, trained: Trained, xformer: Command,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    directory = trained("prose")
    fake.initialised = False
    monkeypatch.chdir(tmp_path)
    code, shown, notes = xformer(*words(directory))
    assert (code, notes) == (0, ""), notes
    assert shown


@pytest.mark.parametrize(
    ("question", "typed"),
    [
        ("attention", [*TINY, "lengths=[16]", "variants=[{attention: full}, {attention: local, window: 2}]"]),
        ("pairs", [*TINY, "pairs=[{attention: local, window: 4, length: 16, against: torch fused}]"]),
        (
            "training",
            [
                "rounds=1",
                "seconds=0",
                "vocabulary=50",
                "tokens=16",
                "models=[{attention: full, length: 16}]",
                "whole=[task=masked_language_modeling,size=tiny]",
            ],
        ),
        (
            "decoding",
            [TINY_MODEL, "variants=[{attention: full}]", "contexts=[8]", "batches=[1]", "new_tokens=2", "rounds=1"],
        ),
    ],
)
def test_a_benchmark(question: str, typed: list[str], fake: FakeCuda, xformer: Command, tmp_path: Path) -> None:
    fake.initialised, fake.busy = True, 100  # by the tensors that are measured
    code, shown, notes = xformer("benchmark", question, *typed, "--output", tmp_path / "results")
    assert (code, notes) == (0, ""), notes
    assert H200 in shown  # on what it was measured

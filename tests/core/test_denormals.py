"""Every command leaves numbers that are too small to be normal to be zero."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import SMALL, SMALL_LISTOPS, Command, ComposeJob
from xformer.core.denormals import flush_denormals
from xformer.training.run import run

SMALLEST = torch.finfo(torch.float32).tiny


def small() -> Tensor:
    """A number below the smallest normal one, or zero."""
    return torch.tensor(SMALLEST) / 4


def test_a_small_number_is_zero_afterwards() -> None:
    assert small() > 0
    flush_denormals()
    assert small() == 0
    assert torch.tensor(SMALLEST) * 1 == SMALLEST


def test_training(compose_job: ComposeJob) -> None:
    run(compose_job(*SMALL, *SMALL_LISTOPS))
    assert small() == 0


@pytest.mark.parametrize(
    "words", [("evaluate", "none"), ("generate", "none", "--prompt", "a"), ("attention", "none", "--input", "a")]
)
def test_commands_that_read_a_run(words: tuple[str, ...], xformer: Command, tmp_path: Path) -> None:
    assert xformer(words[0], tmp_path / words[1], *words[2:])[0] == 1  # there is no such run: it got as far as that
    assert small() == 0


def test_benchmark(xformer: Command) -> None:
    assert xformer("benchmark", "attention", "lengths=0")[0] != 0
    assert small() == 0

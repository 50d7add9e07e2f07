"""The variant is its equation, reads no future and no padding, decodes as it trains, and trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from myplugin.attention import MyPlugin
from torch.autograd.functional import jacobian

import xformer
from xformer.attention.base import AttentionContext
from xformer.core.mask import Mask

HEADS, LENGTH, FEATURES = 2, 7, 4


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def variant(causal: bool) -> MyPlugin:
    return MyPlugin(AttentionContext(HEADS, FEATURES, LENGTH, LENGTH, causal), temperature=3.0)


def mask(causal: bool, real: torch.Tensor | None = None, start: int = 0, length: int = LENGTH) -> Mask:
    positions = torch.arange(start, start + length)[None]
    return Mask(positions, positions, causal, real)


def sequences(batch: int = 1) -> list[torch.Tensor]:
    return [torch.randn(batch, HEADS, LENGTH, FEATURES) for _ in range(3)]


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_equation_written_out(causal: bool) -> None:
    query, key, value = sequences()
    expected = torch.zeros_like(query)
    for head in range(HEADS):
        for i in range(LENGTH):
            reads = range(i + 1 if causal else LENGTH)
            q = query[0, head, i]
            cosines = [q @ key[0, head, j] / (q.norm() * key[0, head, j].norm()) for j in reads]
            weights = torch.softmax(3.0 * torch.stack(cosines), dim=0)
            expected[0, head, i] = sum(w * value[0, head, j] for w, j in zip(weights, reads, strict=True))
    torch.testing.assert_close(variant(causal)(query, key, value, mask=mask(causal)), expected)


def test_no_token_reads_a_later_one() -> None:
    query, key, value = sequences()
    attend = variant(causal=True)
    for read in jacobian(lambda k, v: attend(query, k, v, mask=mask(True))[0].sum((0, 2)), (key, value)):
        by_token = read.abs().sum((1, 2, 4))  # output, input
        assert not by_token.triu(1).any()
        assert by_token.tril(-1)[1:].sum(1).gt(0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_what_padding_holds_changes_nothing(causal: bool) -> None:
    query, key, value = sequences()
    real = torch.arange(LENGTH)[None] < LENGTH - 2
    outputs = []
    for filler in (0.0, 1e6):
        k, v = (torch.where(real[:, None, :, None], tensor, filler) for tensor in (key, value))
        outputs.append(variant(causal)(query, k, v, mask=mask(causal, real))[:, :, : LENGTH - 2])
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_steps_are_the_whole() -> None:
    query, key, value = sequences(batch=2)
    attend = variant(causal=True)
    state = attend.init_state(LENGTH)
    steps = [
        attend.step(*(t[:, :, i : i + 1] for t in (query, key, value)), state, mask=mask(True, start=i, length=1))
        for i in range(LENGTH)
    ]
    torch.testing.assert_close(torch.cat(steps, dim=2), attend(query, key, value, mask=mask(True)))


def test_a_notebook_has_it_with_the_values_of_its_file() -> None:
    attend = xformer.MyPlugin(d_model=8, num_heads=2).double()
    assert attend(torch.randn(1, 5, 8)).shape == (1, 5, 8)


def test_it_trains(tmp_path: Path) -> None:
    words = [
        "attention=myplugin",
        "debug=fast",
        "size=tiny",
        "logger=csv",
        "data.generation.train_size=64",
        "data.generation.val_size=32",
    ]
    where = [f"hydra.run.dir={tmp_path / 'run'}", f"cache={tmp_path / 'cache'}", "trainer.accelerator=cpu"]
    command = [sys.executable, "-m", "xformer.cli", "train", *words, "data.generation.test_size=32", *where]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()

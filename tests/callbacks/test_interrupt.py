"""A run that is stopped from outside keeps what it has and does not claim success."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, SMALL_LISTOPS
from xformer.record.summary import read_summary

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_signal_leaves_a_checkpoint_and_a_failed_summary(
    number: signal.Signals, code: int, tmp_path: Path, cache: Path
) -> None:
    endless = ["trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "callbacks.progress=null"]
    command = [
        sys.executable,
        "train.py",
        *SMALL,
        *SMALL_LISTOPS,
        *endless,
        f"hydra.run.dir={tmp_path}",
        f"cache={cache}",
    ]
    # A shell's background job ignores Ctrl-C, and its children inherit that.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as run:
        try:
            _await_a_step(run, tmp_path / "metrics.csv")
            os.kill(run.pid, number)
            run.communicate(timeout=120)
        finally:
            run.kill()  # it would train for ever
    assert run.returncode == code
    summary = read_summary(tmp_path)
    assert summary.status == "failed"
    assert summary.error
    state = torch.load(tmp_path / "checkpoints" / "interrupted.ckpt", weights_only=True)
    assert state["global_step"] > 0


def _await_a_step(run: "subprocess.Popen[str]", metrics: Path) -> None:
    deadline = time.monotonic() + 120
    while not (metrics.exists() and "train/loss" in metrics.read_text()) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.2)

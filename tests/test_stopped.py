"""What W&B's offline file, and the summary, say of a run that did not finish."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS
from tests.studies.service import of_file, offline_file, records
from xformer.runs.recorded_run import read_run
from xformer.studies.wandb_runs import _run

ROOT = Path(__file__).parents[1]
FAST = [*SMALL, *SMALL_LISTOPS, "experiment=listops_attentions", "hydra.mode=RUN", "logger=wandb", "seed=1"]
ENDLESS = ["trainer.max_steps=1000000", "trainer.val_check_interval=10"]
NAN = ["optimizer.lr=1e20", "trainer.gradient_clip_val=null", "trainer.max_steps=50"]


def stopped(directory: Path, cache: Path, overrides: list[str], how: signal.Signals | None) -> int:
    """The exit code of a run that is left to fail, or gets a signal when some of its curve is on the disk.

    W&B writes 32 KiB at a time, and what it had not written is lost with a process that is killed with SIGKILL.
    """
    words = [sys.executable, str(ROOT / "train.py"), *FAST, *overrides, f"hydra.run.dir={directory}", f"cache={cache}"]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while how and process.poll() is None:
        if sum(file.stat().st_size for file in directory.glob("wandb/offline-run-*/*.wandb")) > 2**16:
            process.send_signal(how)
            how = None
        time.sleep(0.05)
    return process.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "how", "code", "said"),
    [
        (NAN, None, 1, "loss"),
        (ENDLESS, signal.SIGTERM, 143, "Stopped by SIGTERM"),
        (ENDLESS, signal.SIGKILL, -9, "It was killed, or is still running."),
    ],
    ids=["failed", "SIGTERM", "SIGKILL"],
)
def test_an_offline_file_tells_how_a_run_ended(
    overrides: list[str], how: signal.Signals | None, code: int, said: str,
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory = tmp_path / "run"
    assert stopped(directory, cache, overrides, how) == code
    here = read_run(directory)
    ended = {None: "failed", signal.SIGTERM: "interrupted", signal.SIGKILL: "running"}
    assert here.summary.status == ended[how]
    assert said in (here.summary.error or "")
    found = records(offline_file(directory))
    (start,) = [record["run"] for record in found if record["type"] == "run"]
    assert (start["run_group"], start["job_type"]) == ("listops_attentions", "train")
    assert {"attention=full", "experiment=listops_attentions"} <= {*start["tags"]}
    exits = [record["exit"]["exit_code"] for record in found if record["type"] == "exit"]
    assert exits == ([] if how is signal.SIGKILL else [1])
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    remote = of_file("me", offline_file(directory))
    there = _run("me/xformer", remote)
    assert remote.state == ("crashed" if how is signal.SIGKILL else "failed")
    assert there.summary.status == ("failed" if how is signal.SIGKILL else ended[how])
    assert (there.settings, there.seed) == (here.settings, 1)
    if how is signal.SIGKILL:  # the directory has less: it has no summary, and W&B was told how the run began
        assert "seed=1" in there.summary.overrides
        assert len(there.summary.git["commit"]) == 40
        assert there.summary.parameters
    else:
        assert there.summary == here.summary
    logged, written = there.curve("train/loss"), here.curve("train/loss")
    assert len(logged) >= (1 if how is None else 20)
    assert logged == pytest.approx({step: value for step, value in written.items() if step in logged})

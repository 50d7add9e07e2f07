"""A run that a signal stops saves where it was, exactly, and does not claim success."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from tests.callbacks.tiny import Tiny, loaders, trainer
from tests.conftest import SMALL, SMALL_LISTOPS
from xformer.callbacks.interrupt import SaveOnInterrupt, handling_signals, requeue
from xformer.callbacks.resume import ExactResume
from xformer.data.batch import ClassificationBatch
from xformer.errors import Interrupted, RunError
from xformer.runs.checkpoints import read_checkpoint
from xformer.runs.summary import read_summary

ROOT = Path(__file__).parents[2]
OPTIONS: dict[str, Any] = {
    "max_steps": 6, "max_epochs": -1, "accumulate_grad_batches": 2, "val_check_interval": 3,
    "check_val_every_n_epoch": None, "num_sanity_val_steps": 0,
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


class Observed(Tiny):
    """Notes each validation that came to its end, and draws from the random state in it."""

    def __init__(self) -> None:
        super().__init__()
        self.validations: list[tuple[int, float]] = []

    def validation_step(self, batch: ClassificationBatch, batch_idx: int) -> None:
        self.log("val/loss", self.net(batch.tokens.float()).square().mean() + torch.rand(()), batch_size=4)

    def on_validation_epoch_end(self) -> None:
        self.validations.append((self.trainer.global_step, self.trainer.callback_metrics["val/loss"].item()))


class Strikes(Callback):
    """Sends signals to its own process the n-th time that a hook is called."""

    def __init__(self, hook: str, index: int, *numbers: int) -> None:
        self.left, self.numbers = index, numbers
        setattr(self, hook, self._strike)

    def _strike(self, *arguments: Any) -> None:
        if self.left == 0:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        self.left -= 1


def fit(directory: Path, *callbacks: Callback, seed: int, resume: Path | None = None) -> Observed:
    seed_everything(seed, verbose=False)
    model = Observed()
    run = trainer(directory, ExactResume(), SaveOnInterrupt(), *callbacks, **OPTIONS)
    with handling_signals():
        run.fit(model, **loaders(), ckpt_path=resume, weights_only=True)
    return model


@pytest.mark.parametrize("index", [0, 1, 3, -1])
@pytest.mark.parametrize(
    "hook",
    ["on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end",
     "on_validation_start", "on_validation_batch_start", "on_validation_batch_end", "on_validation_end"],
)  # fmt: skip
def test_what_a_signal_saves_goes_on_exactly(hook: str, index: int, tmp_path: Path) -> None:
    consecutive = Strikes(hook, 10**6)
    whole = fit(tmp_path, consecutive, seed=0)
    times = 10**6 - consecutive.left
    seed_everything(0, verbose=False)
    first, strikes = Observed(), Strikes(hook, min(index % times, times - 1), signal.SIGTERM)
    run = trainer(tmp_path, ExactResume(), SaveOnInterrupt(), strikes, **OPTIONS)
    with pytest.raises(Interrupted) as caught, handling_signals():
        run.fit(first, **loaders())
    assert caught.value.code == 143
    saved = tmp_path / "checkpoints" / "last.ckpt"
    if not saved.exists():  # after the last boundary: the checkpoint of the last validation, of others, is the newest
        assert run.global_step == 6
        assert first.validations == whole.validations
        return
    assert read_checkpoint(saved)["global_step"] > 0
    resumed = fit(tmp_path, seed=1, resume=saved)
    for parameter, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert first.validations + resumed.validations == whole.validations
    batches = len(whole.seen) - len(resumed.seen)
    assert all(torch.equal(a, b) for a, b in zip(resumed.seen, whole.seen[batches:], strict=True))


class StrikesAll(Callback):
    """Signals the processes that load data first, as a terminal or SLURM might, and then its own."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        if trainer.global_step == 1 and trainer.fit_loop.epoch_loop.batch_idx == 2:
            workers = multiprocessing.active_children()
            assert workers
            for process in [*workers, multiprocessing.current_process()]:
                assert process.pid is not None
                os.kill(process.pid, self.number)
                time.sleep(0.2)
            assert all(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_processes_that_load_data_go_on_until_the_state_is_saved(
    number: signal.Signals, tmp_path: Path, scontrol: Callable[[str], Path]
) -> None:
    scontrol("true")
    seed_everything(0, verbose=False)
    run = trainer(
        tmp_path, ExactResume(), SaveOnInterrupt(), StrikesAll(number), **{**OPTIONS, "val_check_interval": 6}
    )
    with pytest.raises(Interrupted) as caught, handling_signals():
        run.fit(Observed(), **loaders(workers=1))
    assert caught.value.signal == number
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        fit(tmp_path, Strikes("on_before_backward", 3, signal.SIGINT, signal.SIGINT), seed=0)
    assert caught.value.code == 130
    assert not (tmp_path / "checkpoints").exists()


def test_others_that_are_repeated_do_not_cut_the_saving(tmp_path: Path) -> None:
    moments = {"on_before_backward": 3, "on_save_checkpoint": 0}
    strikes = [Strikes(hook, index, signal.SIGTERM) for hook, index in moments.items()]
    with pytest.raises(Interrupted):
        fit(tmp_path, *strikes, seed=0)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_nothing_is_trained_a_signal_stops_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match="Stopped by") as caught, handling_signals():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handling_signals():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Install a `scontrol` that writes down its words and does what is said."""

    def install(then: str) -> Path:
        stub = tmp_path / "bin" / "scontrol"
        stub.parent.mkdir()
        stub.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{then}\n')
        stub.chmod(0o755)
        monkeypatch.setenv("PATH", f"{stub.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "asked"

    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    return install


def test_usr1_puts_the_job_back_into_the_queue(scontrol: Callable[[str], Path]) -> None:
    received = scontrol("true")
    with pytest.raises(Interrupted, match="SIGUSR1") as caught, handling_signals():
        signal.raise_signal(signal.SIGUSR1)
    assert caught.value.code == 138
    assert received.read_text() == "requeue 17\n"


def test_a_task_of_an_array_is_named_by_both_numbers(
    scontrol: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    received = scontrol("true")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue()
    assert received.read_text() == "requeue 16_3\n"


def test_a_queue_that_refuses_is_told(scontrol: Callable[[str], Path]) -> None:
    scontrol("echo 'Requested operation is presently disabled' >&2; exit 1")
    with pytest.raises(RunError, match=r"scontrol requeue 17 failed \(Requested operation is presently disabled\)"):
        requeue()


def test_lightning_handles_no_signal(tmp_path: Path) -> None:
    class Looks(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[Any] = []
    with handling_signals():
        ours = signal.getsignal(signal.SIGTERM)
        trainer(tmp_path, SaveOnInterrupt(), Looks(), max_steps=1).fit(Tiny(), **loaders())
    assert found == [ours]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, code: int, tmp_path: Path, cache: Path
) -> None:
    endless = ["trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "callbacks.progress=null"]
    command = [
        sys.executable,
        "train.py",
        *SMALL,
        *SMALL_LISTOPS,
        *endless,
        f"hydra.run.dir={tmp_path / 'run'}",
        f"cache={cache}",
    ]
    # A shell's background job ignores Ctrl-C, and its children inherit that.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as run:
        try:
            _await_a_step(run, tmp_path / "run" / "metrics.csv")
            os.kill(run.pid, number)
            said, errors = run.communicate(timeout=120)
        finally:
            run.kill()  # it would train for ever
    assert run.returncode == code, errors
    assert "Traceback" not in errors
    assert f"continue with: python train.py resume={tmp_path / 'run'}" in " ".join(said.split())
    summary = read_summary(tmp_path / "run")
    assert summary.status == "interrupted"
    assert (summary.error or "").startswith("Stopped by ")
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] > 0


def _await_a_step(run: "subprocess.Popen[str]", metrics: Path) -> None:
    deadline = time.monotonic() + 120
    while not (metrics.exists() and "train/loss" in metrics.read_text()) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.2)

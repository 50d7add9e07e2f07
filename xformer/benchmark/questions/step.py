"""Step benchmark: the parts of a training step's time, uncompiled and compiled, and the time to the first step.

A run is trained as `train.py` would train it, under the Trainer with the loggers and callbacks that work in every step,
but for checkpoints and validation. After a warm-up its steps are timed without a look inside. Then the host is profiled
for as many steps: every part of the Trainer's loop, without nested parts. Last, torch's profiler counts
operators, the device's kernels and the time in which the host waits for the device.

On a CPU the host does the work itself, so its parts account for the time. On a GPU it only launches kernels: the host's
time and the kernels' time are both lower bounds of a step, and waiting adds to neither.
"""

import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from omegaconf import DictConfig
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from xformer.benchmark.plots import plot_bars
from xformer.benchmark.progress import progress_bar
from xformer.benchmark.results import Results, Row
from xformer.callbacks.finite_loss import FiniteLoss
from xformer.callbacks.resume import ExactResume
from xformer.callbacks.throughput import Throughput
from xformer.config.plan import Plan
from xformer.config.validate import instantiate_node
from xformer.core import devices
from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.job import Job
from xformer.tasks.base import Task
from xformer.training import compilation
from xformer.training.console_report import quiet_lightning

WARMUP = 30
STEP, OTHER = "the whole step", "the Trainer's own"
PARTS = {
    "fetching the batch": r"train_dataloader_next$",
    "to the device": r"batch_to_device$|transfer_batch_to_device$",
    "forward and loss": r"training_step$",
    "backward": r"\.backward$",
    "clearing gradients": r"zero_grad$",
    "clipping": r"configure_gradient_clipping$",
    "optimiser": r"optimizer_step$",
    "schedule": r"lr_scheduler_step$",
    "callbacks": r"^\[Callback\]",
}
"""The parts of the Trainer's loop, by Lightning's names; the rest counts as the loop itself."""
KERNELS, WAITS, OPERATORS = "kernels on the device", "waits for the device", "operators called"
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
SHOWN = {
    "what": ("what", ""),
    "ms": ("ms a step", ",.3f"),
    "share": ("of the step", ".0%"),
    "calls": ("calls a step", ",.1f"),
    "processor_ms": ("processor ms", ",.3f"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "first_step_seconds": ("first step after s", ",.1f"),
}


class PartTimer(Profiler):
    """A profiler that adds up the seconds of each part of the Trainer's loop, without nested parts."""

    def __init__(self) -> None:
        super().__init__()
        self.watching = False
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._open: list[tuple[str, float]] = []
        self._names: dict[str, str] = {}

    def start(self, action_name: str) -> None:
        """Start a part, nested in those that have not ended."""
        if self.watching:
            self._turn()
            self._open.append((self._part(action_name), time.perf_counter()))

    def stop(self, action_name: str) -> None:
        """End the part that started last."""
        if self.watching and self._open:
            self._turn()
            self.calls[self._open.pop()[0]] += 1
            if self._open:
                self._open[-1] = self._open[-1][0], time.perf_counter()

    def _turn(self) -> None:
        if self._open:
            part, since = self._open[-1]
            self.seconds[part] += time.perf_counter() - since

    def _part(self, action: str) -> str:
        if action not in self._names:
            self._names[action] = next((part for part, name in PARTS.items() if re.search(name, action)), OTHER)
        return self._names[action]


class StepProfiler(Callback):
    """A callback that times steps of a run, then their parts, then profiles further steps with torch's profiler.

    Args:
        parts: the Trainer's profiler.
        steps: the number of steps of each phase.
        on_progress: called after each step.
    """

    def __init__(self, parts: PartTimer, steps: int, on_progress: Callable[[], object]) -> None:
        self.parts, self.steps, self.on_progress = parts, steps, on_progress
        self.done, self.tokens = 0, list[torch.Tensor]()
        self._made = time.perf_counter()
        self.first_step, self.wall, self.processor = 0.0, 0.0, 0.0
        self.profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if devices.is_available() else [])],
            acc_events=True,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Switch to the next phase after the set number of steps."""
        assert isinstance(pl_module, Task)
        self.done += 1
        done, timed = self.done, WARMUP + self.steps
        if WARMUP < done <= timed:
            self.tokens.append(pl_module.count_tokens(batch))
        if done == 1:
            self._wait()
            self.first_step = time.perf_counter() - self._made
        elif done == WARMUP:
            self._wait()
            self.wall, self.processor = -time.perf_counter(), -time.process_time()
        elif done == timed:
            self._wait()
            self.wall += time.perf_counter()
            self.processor += time.process_time()
            self.parts.watching = True
        elif done == timed + self.steps:
            self.parts.watching = False
            self._wait()
            self.profiler.start()
        elif done == timed + 2 * self.steps:
            self._wait()
            self.profiler.stop()
        self.on_progress()

    def _wait(self) -> None:
        devices.synchronize()

    def rows(self) -> Iterator[Row]:
        """The table rows: the whole step, the host's parts, and the profiler's counts."""
        step = 1000 * self.wall / self.steps
        yield {
            "what": STEP,
            "ms": step,
            "share": 1.0,
            "calls": 1.0,
            "processor_ms": 1000 * self.processor / self.steps,
            "tokens_per_second": int(torch.stack(self.tokens).sum()) / self.wall,
            "first_step_seconds": self.first_step,
        }
        whole = sum(self.parts.seconds.values())
        for part in (*PARTS, OTHER):
            host_seconds, calls = self.parts.seconds[part], self.parts.calls[part]
            ms = 1000 * host_seconds / self.steps
            yield {"what": f"host: {part}", "ms": ms, "share": host_seconds / whole, "calls": calls / self.steps}
        events: Sequence[Any] = self.profiler.events()  # type: ignore[no-untyped-call]
        for what, (seconds, count) in _seconds_and_calls(events).items():
            took = None if seconds is None else 1000 * seconds / self.steps
            yield {
                "what": what,
                "ms": took,
                "share": None if took is None else took / step,
                "calls": count / self.steps,
            }


def _seconds_and_calls(events: Sequence[Any]) -> dict[str, tuple[float | None, int]]:
    """The seconds and calls of a profiler entry."""
    on_device = [event for event in events if event.device_type != DeviceType.CPU]
    kernels = [event for event in on_device if not event.is_user_annotation]
    waits = [event for event in events if event.name.startswith(WAITING) and "Async" not in event.name]
    operators = sum(event.name.startswith("aten::") for event in events)
    found: dict[str, tuple[float | None, int]] = {OPERATORS: (None, operators)}
    if devices.is_available():
        found[KERNELS] = sum(event.device_time_total for event in kernels) / 1e6, len(kernels)
        found[WAITS] = sum(event.cpu_time_total for event in waits) / 1e6, len(waits)
    return found


def profiled_run(plan: Plan, steps: int, on_progress: Callable[[], object]) -> StepProfiler:
    """Profile a run of this plan, whose settings of the Trainer are changed.

    Raises:
        ConfigError: the setting cannot be trained.
    """
    needed, node = WARMUP + 3 * steps, plan.config
    data, parts = plan.load_data(), PartTimer()
    watch = StepProfiler(parts, steps, on_progress)
    node.trainer.max_steps, node.trainer.limit_val_batches, node.trainer.enable_checkpointing = needed, 0, False
    node.trainer.enable_progress_bar, node.trainer.profiler = False, None
    with tempfile.TemporaryDirectory() as folder:
        trainer: Trainer = instantiate_node(node.trainer)(
            callbacks=[Throughput(warmup=1), ExactResume(), FiniteLoss(every=50), watch],
            logger=MetricsCSV(Path(folder)),
            default_root_dir=folder,
        )
        trainer.profiler = parts  # type: ignore[attr-defined]
        task = plan.build_task()
        torch._dynamo.reset()
        compilation.compile_step(task, data, node.compile, trainer.strategy.root_device)
        trainer.fit(task, data)
    return watch


def measure(config: DictConfig, *, peers: bool) -> Results:
    """Measure the steps of one run, with each compile mode.

    Args:
        config: `conf/benchmark.yaml`; `train` are overrides of `conf/train.yaml`.
        peers: unused: the uncompiled run is the peer.

    Raises:
        ConfigError: a setting of the run is not valid or cannot be trained.
        IncompatibleError: choices are incompatible.
    """
    quiet_lightning()
    plans, rows = dict[str, Plan](), list[Row]()
    for mode in (str(mode).lower() for mode in config.compile):
        job = Job.compose([*config.train, f"compile={mode}"])
        plans[mode] = Plan.read(job.config, job.choices)
    with progress_bar(len(plans) * (WARMUP + 3 * config.steps)) as on_progress:
        for mode, plan in plans.items():
            rows += [{"compile": mode, **row} for row in profiled_run(plan, config.steps, on_progress).rows()]
    notes = [
        f"Run: {' '.join(config.train)}; {config.steps} steps each for the first line, the host's and the others.",
        "first step after: of building callbacks, compiling and everything else up to the end of the first step.",
        "host: without the parts inside of a part; its share is of all that the host did, watching included.",
    ]
    return Results("step", rows, SHOWN, ("compile",), plot, notes, absent="")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the milliseconds of every part, with a panel for each compile mode."""
    shown = [row for row in rows if row["ms"] is not None and row["what"] != STEP]
    plot_bars(shown, path, name="what", value="ms", panel="compile", label="ms a step")

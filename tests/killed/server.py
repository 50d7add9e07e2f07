"""Runs, kills, resumes and compares: python -m tests.killed.server DIRECTORY SEEDS.

What a run needs is imported once, and every run is a fork of this process, which itself computes nothing.
"""

import csv
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf, open_dict

from tests.killed.strike import Moment, Passages, moment, scontrol
from xformer.config.groups import CONF
from xformer.runs.job import Job, choices
from xformer.tasks.base import Task
from xformer.training import run as runner
from xformer.training.run import run

SMALL = [
    "logger=csv", "trainer.accelerator=cpu", "callbacks.progress=null", "skip_finished=true",
    "size.d_model=16", "size.layers=1", "size.heads=2", "size.feed_forward=16",
    "trainer.max_steps=12", "trainer.val_check_interval=4", "trainer.log_every_n_steps=1", "optimizer.lr=0.01",
    "architecture.dropout=0",
]  # fmt: skip
SIZES = ["data.generation.train_size=40", "data.generation.val_size=24", "data.generation.test_size=16",
         "data.loader.batch_size=8"]  # fmt: skip
TREES = [*SIZES, "data.max_depth=3", "data.max_length=40"]
RECALL = ["task=language_modeling", "data=recall", *SIZES]
KINDS = {
    "accumulation": [
        *TREES, "data.generation.train_size=72", "trainer.accumulate_grad_batches=4", "trainer.val_check_interval=6",
    ],
    "fresh": [*RECALL, "data.generation.fresh=true"],
    "tokens_per_batch": [*TREES, "data.loader.tokens_per_batch=300"],
    "workers": [*TREES, "data.loader.num_workers=1"],
    "dropout": [*TREES, "architecture.dropout=0.3"],
    "gloo": [*TREES, "architecture.dropout=0.3", "trainer.strategy=ddp", "trainer.devices=2"],
    "curriculum": [*TREES, "callbacks=[default,curriculum]", "callbacks.curriculum.steps=8"],
    "early_stopping": [
        *TREES, "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=2", "optimizer.lr=0.3",
        "trainer.max_steps=40", "trainer.val_check_interval=3",
    ],
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SLURM = {"SLURM_JOB_ID": "4217", "SLURM_JOB_NAME": "train", "SLURM_NODEID": "0"}
LONGEST = 120.0  # seconds that a run may take


def job(overrides: list[str], directory: Path, cache: Path) -> Job:
    directory.mkdir(parents=True, exist_ok=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        typed = [*overrides, f"cache={cache}", f"hydra.runtime.output_dir={directory}"]
        config = compose("train", overrides=typed, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    chosen = choices(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    OmegaConf.set_struct(config, True)
    return Job(config, directory, chosen, overrides)


def train(kind: str, directory: Path, cache: Path, strike: Moment | None, counts: Path | None) -> int:
    """One process of one run; the exit code."""
    passages = Passages(strike)
    check = runner.check_monitors

    def watched(trainer: Any, task: Task) -> None:
        check(trainer, task)
        trainer.callbacks.insert(len(trainer.callbacks) * (strike is not None and strike.index % 2), passages)
        passages.watch_writing()

    runner.check_monitors = watched
    try:
        run(job([*SMALL, *KINDS[kind]], directory, cache))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    if counts is not None:
        counts.write_text(json.dumps(passages.counts))
    return 0


def fork(work: Callable[[], int], log: Path, environment: dict[str, str]) -> int:
    """Start a process that does the work; its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ.update(environment)
        rank_zero_only.rank = int(environment.get("LOCAL_RANK") or environment.get("SLURM_PROCID") or 0)
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            signal.signal(number, handler)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def processes(kind: str, directory: Path, cache: Path, strike: Moment | None, counts: Path | None) -> list[int]:
    """The exit codes of a run's processes, by rank; the signal reaches one of them, which dies with the others."""
    world, environment = (2 if kind == "gloo" else 1), {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    if strike is not None and strike.number == signal.SIGUSR1:
        stub = scontrol(directory.parent / f"{directory.name}-slurm")
        environment |= {**SLURM, "SLURM_NTASKS": str(world), "SLURM_NTASKS_PER_NODE": str(world)}
        environment["PATH"] = f"{stub}{os.pathsep}{os.environ['PATH']}"
    struck = strike.index % world if strike is not None else 0
    children = []
    for rank in range(world):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} if "SLURM_JOB_ID" in environment else {}
        if world > 1 and not own:
            own = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world)}
        at = strike if rank == struck or (strike and strike.place == "writing") else None

        def work(at: Moment | None = at, rank: int = rank) -> int:
            return train(kind, directory, cache, at, counts if rank == 0 else None)

        children.append(fork(work, directory.parent / f"{directory.name}.log", {**environment, **own}))
    return _wait(children, kill_all=strike is not None and strike.number == signal.SIGKILL)


def _wait(children: list[int], kill_all: bool) -> list[int]:
    codes: dict[int, int] = {}
    deadline = time.monotonic() + LONGEST
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        died = kill_all and any(code < 0 for code in codes.values())
        if died or time.monotonic() > deadline:
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def scenario(kind: str, number: signal.Signals, seed: int, root: Path) -> str | None:
    """Kill a run, go on with it, and say what differs from the uninterrupted one; None where nothing does."""
    whole, cache, name = root / kind, root / "cache", f"{kind}-{number.name}-{seed}"
    counts = json.loads((root / f"{kind}.json").read_text())
    strike = moment(seed, number, counts, kind)
    told = f"{name} at {strike.place} {strike.index} of {counts[strike.place]}"
    codes = processes(kind, root / name, cache, strike, None)
    expected = -number if number == signal.SIGKILL else 128 + number
    if "ANY_CODE" not in os.environ and expected not in codes:
        return f"{told}: exit codes {codes}, not {expected}"
    codes = processes(kind, root / name, cache, None, None)
    if any(codes):
        return f"{told}: the resumed run ended with {codes}"
    differs = difference(whole, root / name)
    return f"{told}: {differs}" if differs else None


def difference(whole: Path, resumed: Path) -> str | None:
    """What of two runs is not the same."""
    curves = [rows(directory) for directory in (whole, resumed)]
    if curves[0] != curves[1]:
        odd = [row for row in {*curves[0]} ^ {*curves[1]}] or ["the order or a repetition"]
        return f"metrics.csv has {len(curves[1])} rows and not {len(curves[0])}; {sorted(map(str, odd))[:3]}"
    for name in ("newest", "best"):
        states = [state(directory, name) for directory in (whole, resumed)]
        if (unequal := next(unequal_parts(*states), None)) is not None:
            return f"the {name} checkpoint: {unequal}"
    summaries = [json.loads((directory / "summary.json").read_text()) for directory in (whole, resumed)]
    for key in ("status", "metrics", "monitor", "tokens_seen"):
        values = [summary[key] for summary in summaries]
        if key == "metrics":
            values = [{name: value for name, value in found.items() if "per_second" not in name} for found in values]
        if values[0] != values[1]:
            return f"summary.json: {key} is {values[1]} and not {values[0]}"
    return None


def rows(directory: Path) -> list[tuple[str, ...]]:
    """The table as it stands in the file, without what depends on the clock."""
    with (directory / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    kept = [row for row in found if row["metric"] != "tokens_per_second"]
    return [(row["step"], row["epoch"], row["tokens"], row["metric"], row["value"]) for row in kept]


def state(directory: Path, which: str) -> dict[str, Any]:
    files = [*directory.glob("checkpoints/*.ckpt"), *directory.glob("hpc_ckpt_*.ckpt")]
    found = [torch.load(file, weights_only=True) for file in files]
    best = json.loads((directory / "summary.json").read_text())["monitor"]["step"]
    if which == "best":
        return {"state_dict": next(content for content in found if content["global_step"] == best)["state_dict"]}
    newest = max(found, key=lambda content: content["global_step"])
    kept = ("global_step", "epoch", "state_dict", "optimizer_states", "lr_schedulers")
    random = newest["exact_resume"]["random"]
    return {"random": random, **{key: newest[key] for key in kept}}


def unequal_parts(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    if isinstance(expected, torch.Tensor):
        if not torch.equal(expected, found):
            yield path
    elif isinstance(expected, dict):
        if expected.keys() != found.keys():
            yield f"{path} has other keys"
        for key in expected.keys() & found.keys():
            yield from unequal_parts(expected[key], found[key], f"{path}.{key}")
    elif isinstance(expected, list | tuple):
        if len(expected) != len(found):
            yield f"{path} has another length"
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from unequal_parts(one, other, f"{path}.{index}")
    elif expected != found:
        yield f"{path} is {found} and not {expected}"


def scenarios(seeds: int, kinds: list[str]) -> list[tuple[str, signal.Signals, int]]:
    """Every seed with every signal, each in one kind of run, so that every kind meets every signal and place."""

    def kind(seed: int, column: int) -> str:
        lap, place = divmod(seed, 5)
        return kinds[(4 * (lap % 2) + (column + lap // 2 + place) % 4) % len(kinds)]

    return [(kind(seed, column), number, seed) for seed in range(seeds) for column, number in enumerate(SIGNALS)]


def main() -> None:
    torch.set_num_threads(1)
    root, seeds, every = Path(sys.argv[1]), int(sys.argv[2]), len(sys.argv) > 3
    kinds = [*KINDS]
    # One run fills the cache for those that come at the same time.
    for kind in kinds:
        codes = processes(kind, root / kind, root / "cache", None, root / f"{kind}.json")
        if any(codes):
            sys.exit(f"{kind} ended with {codes}: see {root / kind}.log")
    planned = scenarios(seeds, kinds)
    if every:
        planned = [(kind, number, seed) for kind in kinds for seed in range(seeds) for number in SIGNALS]
    results = root / "results.txt"
    running: set[int] = set()

    def work(index: int) -> int:
        try:
            said = scenario(*planned[index], root)
        except Exception:
            said = f"{planned[index]}: {traceback.format_exc()}"
        with results.open("a") as file:
            file.write(json.dumps([*map(str, planned[index]), said]) + "\n")
        return 0

    for index in range(len(planned)):
        while len(running) >= 2:
            running.discard(os.wait()[0])
        running.add(fork(lambda index=index: work(index), root / "workers.log", {}))
    while running:
        running.discard(os.wait()[0])


if __name__ == "__main__":
    main()

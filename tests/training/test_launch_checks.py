"""The scripts of `launch/`: what they assemble, and that it trains."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS
from xformer.runs.summary import read_summary

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
FAST = [*SMALL, *SMALL_LISTOPS]

Call = Callable[..., subprocess.CompletedProcess[str]]


def script(name: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    warm_start = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "NNODES", "NODE_RANK", "MASTER_"))}
    return subprocess.run(
        ["bash", str(ROOT / "launch" / name), *words],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**warm_start, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert os.access(path, os.X_OK)
    if shutil.which("shellcheck"):
        result = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


def test_there_is_a_script_for_each_launcher() -> None:
    assert [path.name for path in SCRIPTS] == ["slurm.sh", "torchrun.sh"]


# SLURM: `srun` stands in, and either writes down its words or runs them.


@pytest.fixture
def slurm(tmp_path: Path) -> Call:
    """Start slurm.sh as a job of two nodes with two tasks each would."""
    stub = tmp_path / "bin" / "srun"
    stub.parent.mkdir()
    stub.write_text('#!/usr/bin/env bash\nif [[ -n ${RUN:-} ]]; then exec "$@"; fi\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def call(*words: str, nodes: int = 2, per_node: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NTASKS_PER_NODE": str(per_node),
            "SLURM_NTASKS": str(nodes * per_node),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}",
        }
        return script("slurm.sh", *words, cwd=tmp_path, **{**variables, **environment})

    return call


def test_slurm_fixes_the_directory_and_tells_the_trainer_what_was_allocated(slurm: Call) -> None:
    result = slurm("attention=linformer", "seed=1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        sys.executable,
        "train.py",
        "hydra.run.dir=outputs/slurm-17",
        "trainer.num_nodes=2",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "attention=linformer",
        "seed=1",
    ]


def test_slurm_with_one_task_needs_no_strategy(slurm: Call) -> None:
    assert "trainer.strategy=auto" in slurm(nodes=1, per_node=1).stdout.splitlines()


@pytest.mark.parametrize("checkpoint", ["checkpoints/last.ckpt", "hpc_ckpt_1.ckpt"])
@pytest.mark.parametrize("typed", [[], ["hydra.run.dir=outputs/my run"]])
def test_slurm_resumes_only_where_there_is_a_checkpoint(
    slurm: Call, tmp_path: Path, checkpoint: str, typed: list[str]
) -> None:
    directory = tmp_path / "outputs" / ("my run" if typed else "slurm-17")
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "summary.json").touch()
    assert "resume=true" not in slurm(*typed).stdout.splitlines()
    (directory / checkpoint).touch()
    words = slurm(*typed).stdout.splitlines()
    assert "resume=true" in words
    named = [word for word in words if word.startswith("hydra.run.dir=")]
    assert named[-1] == f"hydra.run.dir={directory.relative_to(tmp_path)}"


def test_slurm_asks_to_be_requeued_in_time_and_by_tasks_per_node() -> None:
    lines = (ROOT / "launch" / "slurm.sh").read_text().splitlines()
    options = [line.split(maxsplit=1)[1] for line in lines if line.startswith("#SBATCH ")]
    assert {"--requeue", "--open-mode=append", "--signal=USR1@90"} <= set(options)
    assert any(option.startswith("--ntasks-per-node=") for option in options)
    assert not any(option.startswith("--ntasks=") for option in options)
    # Options after the first command are comments to sbatch.
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


def test_slurm_outside_of_a_job_says_how_to_start_it(slurm: Call) -> None:
    result = slurm(SLURM_SUBMIT_DIR="")
    assert result.returncode != 0
    assert "sbatch" in result.stderr


@pytest.mark.slow
def test_what_slurm_assembles_trains_and_goes_on_after_a_requeue(slurm: Call, tmp_path: Path, cache: Path) -> None:
    words = [*FAST, f"cache={cache}", f"hydra.run.dir={tmp_path / 'run'}"]
    job = {"nodes": 1, "per_node": 1, "RUN": "1", "SLURM_SUBMIT_DIR": str(ROOT)}
    first = slurm(*words, **job)
    assert first.returncode == 0, first.stderr
    second = slurm(*words, "trainer.max_steps=10", **job)
    assert second.returncode == 0, second.stderr
    summary = read_summary(tmp_path / "run")
    assert (summary.status, "resume=true" in summary.overrides) == ("finished", True)
    steps = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    header = steps[0]
    seen = [int(row[header.index("step")]) for row in steps[1:] if row[header.index("metric")] == "train/loss"]
    assert seen == list(range(10))


# torchrun


@pytest.mark.slow
def test_torchrun_trains_once_with_two_processes(tmp_path: Path, cache: Path) -> None:
    words = [*FAST, f"cache={cache}", f"hydra.run.dir={tmp_path / 'runs' / 'one'}", "data=digits"]
    words = [word for word in words if word not in SMALL_LISTOPS]
    result = script("torchrun.sh", *words, cwd=tmp_path, PROCESSES="2")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]
    summary = read_summary(tmp_path / "runs" / "one")
    assert summary.status == "finished"
    assert {"trainer.strategy=ddp", "trainer.devices=2", "trainer.num_nodes=1"} <= set(summary.overrides)
    assert result.stdout.count("Results") == 1
    assert "2 x " in result.stdout


@pytest.fixture
def torchrun(tmp_path: Path) -> Call:
    """Start torchrun.sh with an interpreter that writes down its words."""
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nif [[ $1 == -c ]]; then echo 3; exit; fi\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    return lambda *words, **environment: script(
        "torchrun.sh", *words, cwd=tmp_path, **{"PYTHON": str(python), **environment}
    )


def test_torchrun_uses_every_gpu_and_one_directory(torchrun: Call) -> None:
    words = torchrun("seed=1").stdout.splitlines()
    assert {"--standalone", "--nnodes=1", "--nproc-per-node=3", "trainer.devices=3"} <= set(words)
    assert len([word for word in words if word.startswith("hydra.run.dir=outputs/")]) == 1
    assert words[-1] == "seed=1"


def test_torchrun_over_two_machines(torchrun: Call) -> None:
    machines = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "PROCESSES": "4"}
    words = torchrun("hydra.run.dir=outputs/both", **machines).stdout.splitlines()
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=first", "--master-port=29500"} <= set(words)
    assert {"trainer.num_nodes=2", "trainer.devices=4", "trainer.strategy=ddp"} <= set(words)
    assert "--standalone" not in words


@pytest.mark.parametrize(
    ("missing", "asked_for"),
    [("NODE_RANK", "NODE_RANK"), ("MASTER_ADDR", "MASTER_ADDR"), ("hydra.run.dir", "hydra.run.dir=DIR")],
)
def test_torchrun_over_two_machines_asks_for_what_is_missing(torchrun: Call, missing: str, asked_for: str) -> None:
    machines = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "first", "PROCESSES": "1"}
    machines.pop(missing, None)
    result = torchrun(*(["hydra.run.dir=outputs/both"] if missing != "hydra.run.dir" else []), **machines)
    assert result.returncode != 0
    assert asked_for in result.stderr
    assert not result.stdout

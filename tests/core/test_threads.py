"""How many threads compute is a matter of the model and the machine, not of the moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.core import threads
from xformer.runs.summary import read_summary
from xformer.training.run import run

FAST = [*SMALL, *SMALL_LISTOPS]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "_allowed", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(1)


def config(width: int = 1024, asked: int | str = "auto", devices: object = 1):
    return OmegaConf.create({"threads": asked, "size": {"d_model": width}, "trainer": {"devices": devices}})


@pytest.mark.parametrize(
    ("width", "cores", "expected"),
    [(32, 8, 1), (64, 8, 1), (128, 8, 2), (256, 8, 4), (768, 8, 8), (768, 2, 2), (768, 1, 1)],
)
def test_one_for_every_64_of_the_width_and_no_more_than_cores(
    width: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    assert threads.thread_count(config(width)) == expected


@pytest.mark.parametrize(
    ("devices", "at_once", "launched", "expected"),
    [(1, 1, None, 8), (2, 1, None, 4), ([0, 1], 2, None, 2), (1, 3, None, 2), (1, 20, None, 1), ("auto", 1, None, 8),
     (4, 1, "2", 4), ("2", 1, None, 4)],
)  # fmt: skip
def test_what_runs_beside_it_gets_its_share(
    devices: object, at_once: int, launched: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr("xformer.core.devices.device_count", lambda: 0)
    if launched:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", launched)
    assert threads.thread_count(config(devices=devices), at_once=at_once) == expected


def test_the_variable_that_openmp_reads_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(threads, "_allowed", "3")
    assert threads.thread_count(config()) == 3
    assert threads.thread_count(config(width=64)) == 1


def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert threads.thread_count(config(asked=5), at_once=4) == 5


def test_load_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the number of threads changes bits: two runs with one seed would differ without a word."""
    found = set()
    for load in (0.0, 50.0):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, load, load))
        found.add(threads.thread_count(config()))
    assert len(found) == 1


def test_a_resumed_run_takes_the_number_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    file = tmp_path / "config.yaml"
    file.write_text("threads: 3\n")
    assert threads.thread_count(config(), earlier=file) == 3
    assert threads.thread_count(config(asked=2), earlier=file) == 2
    for text in ("seed: 1\n", "a: [b", "threads: auto\n", ""):  # of an older version, or damaged
        file.write_text(text)
        assert threads.thread_count(config(), earlier=file) == 8
    assert threads.thread_count(config(), earlier=tmp_path / "absent.yaml") == 8


def test_a_run_records_its_number_and_goes_on_with_it(compose_job: ComposeJob) -> None:
    job = compose_job(*FAST, "threads=2")
    run(job)
    assert read_summary(job.directory).hardware["torch_threads"] == 2
    assert OmegaConf.load(job.directory / "config.yaml").threads == 2
    again = compose_job(*FAST, "resume=true", "trainer.max_steps=8", directory=job.directory)
    run(again)
    assert torch.get_num_threads() == 2
    assert read_summary(job.directory).hardware["torch_threads"] == 2


def test_the_next_run_of_a_process_has_a_number_of_its_own(compose_job: ComposeJob, tmp_path: Path) -> None:
    run(compose_job(*FAST, "threads=3", directory=tmp_path / "three"))
    run(compose_job(*FAST, directory=tmp_path / "own"))
    assert read_summary(tmp_path / "own").hardware["torch_threads"] == 1


def test_waiting_threads_sleep() -> None:
    """As OpenMP itself tells it, when torch loads it after the command line was."""
    code = "import os; import xformer.cli; os.environ['OMP_DISPLAY_ENV'] = 'TRUE'; import torch"
    given = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_the_environment_decides_how_they_wait_if_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("KMP_BLOCKTIME", "1")  # so that it is put back
    monkeypatch.delenv("KMP_BLOCKTIME")
    threads.wait_passively()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"]) == ("ACTIVE", "0")


def test_the_command_line_loads_before_torch_does() -> None:
    code = "import sys; import xformer.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_number_reaches_processes_that_are_started_later() -> None:
    threads.set_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert torch.get_num_threads() == 2


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= threads.usable_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            assert threads.usable_cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)

"""One process at a time in a run directory, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xformer.errors import RunError
from xformer.runs import lock
from xformer.runs.lock import FILE, RunLock

HOLD = """
import os, sys, time
from pathlib import Path
from xformer.runs.lock import RunLock
held = RunLock(Path(sys.argv[1]))
held.claim()
if os.fork() == 0:  # as a process that loads data
    time.sleep(float(sys.argv[2]))
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(directory: Path, orphan_seconds: float = 0.0) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", HOLD, str(directory), str(orphan_seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
            process.stdout.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 0.5)


def test_a_second_process_is_refused_by_name_and_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        before = (tmp_path / FILE).read_bytes()
        for ask in (RunLock.acquire, RunLock.claim):
            with pytest.raises(RunError, match=rf"in use by process {process.pid} on {socket.gethostname()} since 2.*"):
                ask(RunLock(tmp_path))
        assert (tmp_path / FILE).read_bytes() == before
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [FILE]


def test_a_killed_process_keeps_nothing_although_its_children_live(tmp_path: Path) -> None:
    with holder(tmp_path, orphan_seconds=5.0) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / FILE).read_text())["pid"] == process.pid
        mine = RunLock(tmp_path)
        mine.claim()
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
        mine.release()
    assert (tmp_path / FILE).read_bytes() == b""


def test_a_directory_that_was_let_go_is_free(tmp_path: Path) -> None:
    mine = RunLock(tmp_path)
    mine.claim()
    mine.release()
    with holder(tmp_path), pytest.raises(RunError, match="in use"):
        RunLock(tmp_path).acquire()


def test_to_acquire_changes_nothing_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("theirs")
    early = RunLock(tmp_path)
    early.acquire()
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs.txt"]
    early.release()
    (tmp_path / FILE).write_bytes(b"")
    os.utime(tmp_path / FILE, ns=(1, 1))
    early.acquire()
    early.release()
    assert (tmp_path / FILE).stat().st_mtime_ns == 1


def _from_elsewhere(directory: Path) -> Path:
    file = directory / FILE
    file.write_text(json.dumps({"host": "another.machine", "pid": 7, "since": "2026-01-01 00:00:00"}))
    return file


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("locks", [True, False], ids=["of this machine alone", "none"])
def test_where_locks_do_not_reach_a_holder_elsewhere_is_known_by_its_signs_of_life(
    locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not locks:
        monkeypatch.setattr("fcntl.lockf", _unsupported)
    file, stop = _from_elsewhere(tmp_path), threading.Event()

    def live() -> None:
        while not stop.wait(0.05):
            os.utime(file)

    alive = threading.Thread(target=live)
    alive.start()
    try:
        with pytest.raises(RunError, match=r"process 7 on another\.machine since 2026-01-01 00:00:00"):
            RunLock(tmp_path).acquire()
    finally:
        stop.set()
        alive.join()
    assert "for its heartbeat" in caplog.text
    after_a_reboot = RunLock(tmp_path)
    after_a_reboot.claim()
    assert json.loads(file.read_text())["host"] == socket.gethostname()
    after_a_reboot.release()


def _unsupported(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.usefixtures("_impatient")
def test_a_holder_gives_signs_of_life_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", _unsupported)
    mine = RunLock(tmp_path)
    mine.claim()
    with pytest.raises(RunError, match="in use"):
        RunLock(tmp_path).acquire()
    mine.release()
    after = RunLock(tmp_path)
    after.acquire()
    after.release()


def test_two_that_claim_at_once_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", _unsupported)
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    second.acquire()
    first.claim()
    with pytest.raises(RunError, match=f"process {os.getpid()}"):
        second.claim()
    second.release()
    first.release()


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(RunError, match=r"cannot be written \(Is a directory\); use another hydra\.run\.dir\.$"):
        RunLock(tmp_path).acquire()

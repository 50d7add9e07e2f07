"""The lock of a run directory, into which only one process at a time may write."""

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from xformer.errors import RunError

log = logging.getLogger(__name__)
FILE = ".lock"
BEAT, PATIENCE = 5.0, 20.0
"""Seconds between two heartbeats of the holder, and how long another process waits for one."""


class RunLock:
    """A lock held by the one process that may write into a run directory; released when the process ends in any way.

    It is the operating system's record lock (`fcntl.lockf`), which excludes other processes, and other machines over
    NFS. Unlike `flock`, which the package filelock uses, it is not inherited by data-loading workers, which would hold
    it for some seconds after their parent was killed; and a refused lock leaves the file's content unchanged.

    Some network file systems have no locks, or have locks that hold on one machine only. Therefore the holder also
    writes its identity into the file and touches the file every few seconds (a heartbeat): if the record lock is not
    conclusive, a process that sees the file being touched is refused. A file that is not touched, after a reboot for
    instance, does not lock anything. Clocks of different machines are never compared.

    The file is created with the directory's first run and is empty while nobody holds the lock. Closing any other
    descriptor of it in this process would release the lock, so only this class reads it.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self.claimed = False
        self._file: FileIO | None = None
        self._found: Mapping[str, Any] = {}
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Lock a directory that is empty or has the lock file, without changing its content.

        Raises:
            RunError: another process holds it, or the file cannot be opened.
        """
        if self._file is None and (self.path.exists() or is_empty(self.path.parent)):
            self._open()

    def claim(self) -> None:
        """Lock the directory and write the holder into the lock file.

        Raises:
            RunError: another process holds it, or the file cannot be written.
        """
        if self.claimed:
            return
        if self._file is None:
            self._open()
        assert self._file is not None
        if (other := _holder(self._file)) != self._found:  # since it was opened, where there are no record locks
            raise _held(self.path, other)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._file.truncate(0)
        self._file.seek(0)
        self._file.write(json.dumps(holder).encode())
        self.claimed = True
        threading.Thread(target=self._beat, name="run lock", daemon=True).start()

    def release(self) -> None:
        """Release the lock."""
        self._ended.set()
        if self._file is not None:
            if self.claimed:
                with contextlib.suppress(OSError):
                    self._file.truncate(0)
            self._file.close()
        self._file, self.claimed = None, False

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); use another hydra.run.dir.") from error
        try:
            _refuse_living(file, self.path, certain=_locked(file, self.path))
        except BaseException:
            file.close()
            raise
        self._file, self._found = file, _holder(file)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def is_empty(directory: Path) -> bool:
    """Whether the directory is empty except for the lock file."""
    return not directory.exists() or all(entry.name == FILE for entry in directory.iterdir())


def _locked(file: FileIO, path: Path) -> bool:
    """Acquire the record lock; False if the file system has no locks.

    Raises:
        RunError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _held(path, _holder(file)) from None
        return False
    return True


def _refuse_living(file: FileIO, path: Path, *, certain: bool) -> None:
    """Watch for the heartbeat of a holder that the record lock does not show.

    Raises:
        RunError: the file was touched.
    """
    holder, here = _holder(file), socket.gethostname()
    if not holder or (certain and holder.get("host") == here):
        return
    who = path.parent, holder.get("pid"), holder.get("host"), PATIENCE
    log.warning("%s was last held by process %s on %s: waiting %.0f s for its heartbeat", *who)
    # An NFS client caches attributes that it has just read for three seconds.
    before, until = path.stat().st_mtime_ns, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(PATIENCE / 100)
        if path.stat().st_mtime_ns != before:
            raise _held(path, _holder(file))


def _holder(file: FileIO) -> Mapping[str, Any]:
    """The holder that the file names; empty if it names none."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _held(path: Path, holder: Mapping[str, Any]) -> RunError:
    who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "another process"
    return RunError(
        f"hydra.run.dir={path.parent} is in use by {who}; wait until it has ended, stop it, or use another "
        "hydra.run.dir."
    )

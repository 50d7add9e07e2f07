"""A run directory's lock: one process at a time may write into it."""

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
"""Seconds between two signs of life, and how long somebody waits for one."""


class RunLock:
    """Held by the one process that may write into a run directory; it ends with its process, however that dies.

    The operating system's record lock is what excludes (`fcntl.lockf`): between processes, and between machines over
    NFS. Unlike `flock`, which the package filelock takes, the workers that load data do not inherit it and hold it for
    some seconds after their parent was killed; and what is in the file stays as it is when a lock is refused.

    Some network file systems have no locks, or keep them to one machine. So the holder writes into the file who it is,
    and touches the file every few seconds: where the record lock does not settle it, somebody who finds the file
    moving is refused. A file that stands still, after a reboot for instance, holds nobody; no two clocks are compared.

    The file is made once, with the directory's first run, and empty when nobody holds it. Closing any other descriptor
    of it in this process would give up the lock: it is read through this class alone.

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
        """Lock an empty directory, or one that has the file; nothing that is there is changed.

        Raises:
            RunError: another process holds it, or the file cannot be opened.
        """
        if self._file is None and (self.path.exists() or is_empty(self.path.parent)):
            self._open()

    def claim(self) -> None:
        """Lock the directory and say so in the file: from here on it may be written.

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
        """Let others have the directory."""
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
            raise RunError(f"{self.path} cannot be written ({error.strerror}); give another hydra.run.dir.") from error
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
    """Whether nothing is there, but for the lock."""
    return not directory.exists() or all(entry.name == FILE for entry in directory.iterdir())


def _locked(file: FileIO, path: Path) -> bool:
    """Take the record lock; False where the file system has none.

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
    """Watch for signs of life of a holder that the record lock does not tell of.

    Raises:
        RunError: there is one.
    """
    holder, here = _holder(file), socket.gethostname()
    if not holder or (certain and holder.get("host") == here):
        return
    who = path.parent, holder.get("pid"), holder.get("host"), PATIENCE
    log.warning("%s was last held by process %s on %s: waiting %.0f s for a sign of life", *who)
    # Attributes that an NFS client has just read for the first time are read again after three seconds.
    before, until = path.stat().st_mtime_ns, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(PATIENCE / 100)
        if path.stat().st_mtime_ns != before:
            raise _held(path, _holder(file))


def _holder(file: FileIO) -> Mapping[str, Any]:
    """Who wrote itself into the file; empty where nobody did."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _held(path: Path, holder: Mapping[str, Any]) -> RunError:
    who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "another process"
    return RunError(
        f"hydra.run.dir={path.parent} is in use by {who}; wait until that has ended, stop it, or give another "
        "hydra.run.dir."
    )

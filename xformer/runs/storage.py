"""Atomic writes of files, and clear messages for errors of the disk."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xformer.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user has no permission",
    errno.EPERM: "this user has no permission",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "it is a file",
}
_OF_PATHS = {errno.ENAMETOOLONG, errno.ENOTDIR}  # which reading meets as well
_OF_RUST = re.compile(r"\(os error (\d+)\)")  # how tokenizers and safetensors say it
_OF_NUMPY = re.compile(r"\d+ requested and \d+ written")
_BYTES_OF_A_FULL_DISK = 2**20


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that atomically replaces `path` once it is on the disk.

    It is written in the same directory, not in TMPDIR, because a rename is atomic only within one file system. After an
    error the older file is unchanged and the temporary file is removed.

    Raises:
        OSError: the file cannot be written; it names the path.
    """
    staged = path.with_name(f".{path.name}.partial")
    try:
        with naming_file(path), staged.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a text atomically, replacing an existing file.

    Raises:
        OSError: the file cannot be written; it names the path.
    """
    with atomic_file(path) as file:
        file.write(text.encode())


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the file's name to an `OSError` that lacks it, as those of writes to a full disk do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # otherwise it has its own message, which a file name would replace
            error.filename = str(path)  # also where it was staged elsewhere
        raise


@contextmanager
def explaining_disk_errors(locations: Mapping[str, Path]) -> Iterator[None]:
    """Turn an error of the disk into a `StorageError`.

    Args:
        locations: keys that decide where files are written (`hydra.run.dir`), with their directories; the message names
            the first that contains the file.

    Raises:
        StorageError: a disk is full, or not writable.
    """
    try:
        yield
    except Exception as error:
        if (sentence := explain_disk_error(error, locations)) is not None:
            raise StorageError(sentence) from error
        raise


def explain_disk_error(error: BaseException, locations: Mapping[str, Path]) -> str | None:
    """The message for an error of the disk: path, reason and remedy; None for any other error."""
    number = _number(error)
    if number not in _REASONS:
        return None
    file = getattr(error, "filename", None)
    if file is not None:
        where, deciding = str(file), [name for name, place in locations.items() if _inside(Path(str(file)), place)][:1]
    else:
        deciding = [name for name, place in locations.items() if number not in _FULL or _is_full(place)] or [*locations]
        where = " or ".join(str(locations[name]) for name in deciding) or "A file"
    remedy = "free some space, or " if number in _FULL else ""
    option = " or ".join(deciding) or "place"
    kept = "Files saved before are intact."
    done = "used" if number in _OF_PATHS else "written"
    return f"{where} cannot be {done}: {_REASONS[number]}; {remedy}use another {option}. {kept}"


def _number(error: BaseException) -> int | None:
    """The errno of an error, also of one that a library has wrapped in a text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, OSError) and _OF_NUMPY.search(str(error)):
        return errno.ENOSPC
    found = _OF_RUST.search(str(error)) if type(error) is Exception else None
    return int(found[1]) if found else None


def _inside(file: Path, place: Path) -> bool:
    return file.absolute().is_relative_to(place.absolute())


def _is_full(place: Path) -> bool:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free < _BYTES_OF_A_FULL_DISK


def _sync_directory(directory: Path) -> None:
    """Flush a directory entry to the disk, where the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

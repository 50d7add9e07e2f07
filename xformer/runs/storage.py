"""Files that are written whole or not at all, and what to do where the disk does not take them."""

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
    """A file to write that takes the place of `path` in one step, once it is on the disk.

    It is written beside its place and not where TMPDIR says: only within one file system is moving it one step. After
    an error the older file is as it was, and nothing else is left.

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
    """Write a text in one step, replacing an older one.

    Raises:
        OSError: it cannot be written; it names the path.
    """
    with atomic_file(path) as file:
        file.write(text.encode())


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let an error of the system name the file: a write to a full disk does not know which it was."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it has a text of its own, which a name would take the place of
            error.filename = str(path)  # also where it was staged elsewhere
        raise


@contextmanager
def explaining_disk_errors(locations: Mapping[str, Path]) -> Iterator[None]:
    """Turn an error of the disk into a sentence.

    Args:
        locations: what decides where things are written (`hydra.run.dir`), and where that is; the first that fits is
            named.

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
    """The sentence of an error of the disk: the path, the reason, and the way out; None for any other error."""
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
    kept = "What was saved before is intact."
    done = "used" if number in _OF_PATHS else "written"
    return f"{where} cannot be {done}: {_REASONS[number]}; {remedy}give another {option}. {kept}"


def _number(error: BaseException) -> int | None:
    """The system's number of an error, also where a library has made a text of it."""
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
    """Put a new name on the disk; not every system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

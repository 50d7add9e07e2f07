"""The checkpoint files of a run: written atomically, verified when read, and found again to resume.

A file is a zip archive as `torch.save` writes it, with the SHA-256 of everything before it as the archive's comment;
`torch.load` and `unzip` read it as usual. Files of earlier versions lack that comment and are verified by the
archive's CRC-32.
"""

import hashlib
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io import CheckpointIO

from xformer.errors import RunError
from xformer.runs.storage import atomic_file

log = logging.getLogger(__name__)
FOLDER = "checkpoints"
LAST = "last.ckpt"
"""Where to resume, in `FOLDER`."""

_COMMENT = re.compile(rb"sha256:[0-9a-f]{64}")
_COMMENT_LENGTH = len(b"sha256:") + 64
_END_WITHOUT_COMMENT = re.compile(rb"PK\x05\x06.{16}\0\0", re.DOTALL)
_END_LENGTH = 22


class CheckpointFiles(CheckpointIO):
    """Lightning's checkpoint plugin, which saves, loads and removes files through this module."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint into main memory with `weights_only`, whatever the arguments: a file cannot run code."""
        return read_checkpoint(Path(path), mmap=False)  # an optimiser would keep a mapped file open for the whole run

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, replacing one of the same name only once the new one is on the disk.

    Raises:
        OSError: the disk is full, or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _placed(content, path.parent, Path())
    with atomic_file(path) as file:
        sealed = _Sealed(file)
        torch.save(content, cast(IO[bytes], sealed))
        sealed.finish()


def read_checkpoint(path: Path, *, mmap: bool = True) -> dict[str, Any]:
    """Read a checkpoint, with tensors on the CPU.

    Args:
        path: the file.
        mmap: whether to read tensors from the disk as they are used.

    Raises:
        RunError: the file is damaged or missing.
    """
    try:
        if (damage := _damage(path)) is None:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            return _placed(content, Path(), path.parent)
    except Exception as error:  # whatever a damaged archive makes of its reader
        damage = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise RunError(f"{path} cannot be read ({damage}); name another checkpoint or train the run again.")


def find_checkpoints(directory: Path) -> list[Path]:
    """Every checkpoint of a run directory, newest first, including those of SLURM's requeue in earlier versions."""
    files = [*(directory / FOLDER).glob("*.ckpt"), *directory.glob("hpc_ckpt_*.ckpt")]
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def readable_checkpoints(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The readable checkpoints with their content, newest first; damaged ones are logged."""
    for file in find_checkpoints(directory):
        try:
            content = read_checkpoint(file)
        except RunError as error:
            log.warning("%s The next older one is tried.", str(error).partition("; name another")[0] + ".")
            continue
        yield file, content


def check_not_overwriting(directory: Path) -> None:
    """Refuse to overwrite the checkpoints of an earlier run.

    Raises:
        RunError: the directory holds checkpoints.
    """
    if find_checkpoints(directory):
        raise RunError(
            f"hydra.run.dir={directory} has the checkpoints of an earlier run; resume=true continues it, and another "
            "hydra.run.dir leaves it alone."
        )


def _placed(content: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """A checkpoint with the paths in its callbacks' state moved from the directory `old` to `new`.

    Only ModelCheckpoint's state has paths. In a file they are relative to the file, so that a run can be moved. Files
    of earlier versions hold absolute paths, of which the last part still applies.
    """
    callbacks = dict(content.get("callbacks", {}))
    for key, state in callbacks.items():
        if not isinstance(state, dict) or "best_model_path" not in state:
            continue
        stored = Path(state["dirpath"])
        if stored == old or (old == Path() and stored.name == new.name):
            callbacks[key] = _moved(state, stored, new)
    return {**content, "callbacks": callbacks} if callbacks else content


def _moved(state: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    def moved(path: str) -> str:
        inside = path and Path(path).is_relative_to(old)
        return str(new / Path(path).relative_to(old)) if inside else path

    return {
        **state,
        **{key: moved(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")},
        "best_k_models": {moved(path): value for path, value in state["best_k_models"].items()},
        "dirpath": str(new),
    }


class _Sealed:
    """A stream that writes an archive and appends the checksum of its content as the archive's comment.

    The archive's last two bytes are the length of its comment, so the last piece is held back.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._last, self._hash = file, b"", hashlib.sha256()
        self._error: OSError | None = None

    def write(self, piece: Any) -> int:
        """Write the previous piece and hold this one back; errors are stored, because torch would replace them."""
        self._put(self._last)
        self._last = bytes(piece)
        return len(self._last)

    def flush(self) -> None:
        """Do nothing: the last piece is held back until the end."""

    def finish(self) -> None:
        """Write the last piece and the comment.

        Raises:
            OSError: the first error of any write.
        """
        self._put(self._last[:-2] + _COMMENT_LENGTH.to_bytes(2, "little"))
        self._put(b"sha256:" + self._hash.hexdigest().encode())
        if self._error is not None:
            raise self._error

    def _put(self, piece: bytes) -> None:
        try:
            if self._error is None:
                self._file.write(piece)
        except OSError as error:
            self._error = error
        self._hash.update(piece)


def _damage(path: Path) -> str | None:
    """The damage that a file's checksum shows; None if there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _COMMENT_LENGTH))
        end = file.read()
        if _COMMENT.fullmatch(end):
            file.seek(0)
            hashed = _hash(file, size - _COMMENT_LENGTH)
            return None if end == b"sha256:" + hashed.encode() else "its checksum does not match"
    if not _END_WITHOUT_COMMENT.fullmatch(end[-_END_LENGTH:]):
        return "it is not whole"
    with zipfile.ZipFile(path) as archive:
        return None if archive.testzip() is None else "its checksum does not match"


def _hash(file: IO[bytes], size: int) -> str:
    hashed = hashlib.sha256()
    while size > 0 and (piece := file.read(min(size, 2**20))):
        hashed.update(piece)
        size -= len(piece)
    return hashed.hexdigest()

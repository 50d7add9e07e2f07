"""A disk that is full or not writable: a sentence with the path and the way out, whoever wrote."""

import errno
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL, ComposeJob
from xformer import cli
from xformer.errors import StorageError
from xformer.runs.checkpoints import find_checkpoints, read_checkpoint
from xformer.runs.storage import atomic_file, explain_disk_error, explaining_disk_errors
from xformer.training.run import run

TEXT = [*SMALL, "task=language_modeling", "data.block=32", "tokenizer=byte"]
Usage = namedtuple("Usage", "total used free")


class Faults:
    """Opens files for writing as the system would on a bad day.

    An audit hook, which cannot be taken out again and slows all that follows in the process: it is set by the first
    test that needs it, and not when the tests are collected.
    """

    def __init__(self) -> None:
        self.watched: Path | None = None
        self.opened: list[str] = []
        self.fails: Callable[[str], bool] = lambda name: False
        self.number = errno.ENOSPC
        self.hooked = False

    def watch(self, path: Path) -> None:
        """Begin with no file opened and none that fails."""
        self.watched, self.opened, self.fails = path, [], lambda name: False
        if not self.hooked:
            sys.addaudithook(self._audit)
            self.hooked = True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.watched is None or not isinstance(arguments[0], str | os.PathLike):
            return
        path, mode, flags = os.fspath(arguments[0]), arguments[1], arguments[2]
        writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
        if writes and str(path).startswith(str(self.watched)):
            self.opened.append(str(path))
            if self.fails(str(path)):
                raise OSError(self.number, os.strerror(self.number), str(path))


_FAULTS = Faults()


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    _FAULTS.watch(tmp_path)
    yield _FAULTS
    _FAULTS.watched = None


def kind_of(path: str, root: Path) -> str:
    """A file's name, or the entry of the cache that it is of."""
    inside = Path(path).relative_to(root)
    return "cache" if inside.parts[0] == "cache" else inside.name


WRITTEN = {"config.yaml", "summary.json", "metrics.csv", "data.json", "tokenizer.json", "cache", "last.ckpt"}


def _job(compose_job: ComposeJob, tmp_path: Path) -> Any:
    job = compose_job(*TEXT)
    job.config.cache = str(tmp_path / "cache")
    return job


def test_what_a_run_writes(compose_job: ComposeJob, tmp_path: Path, faults: Faults) -> None:
    run(_job(compose_job, tmp_path))
    names = {kind_of(path, tmp_path).removeprefix(".").removesuffix(".partial") for path in faults.opened}
    assert {name for name in WRITTEN if any(name.partition(".")[0] in opened for opened in names)} == WRITTEN


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_file_that_cannot_be_written_is_named(
    name: str, number: int, compose_job: ComposeJob, tmp_path: Path, faults: Faults
) -> None:
    stem = name.partition(".")[0]
    job = _job(compose_job, tmp_path)
    faults.number, faults.fails = number, lambda path: stem in kind_of(path, tmp_path)
    with pytest.raises(Exception, match=r"cannot be written|No space|Read-only") as caught:
        run(job)
    error = caught.value
    place = {"hydra.run.dir": job.directory, "cache": tmp_path / "cache"}
    sentence = str(error) if isinstance(error, StorageError) else explain_disk_error(error, place)
    assert sentence is not None, repr(error)
    assert str(tmp_path / "cache" if name == "cache" else job.directory) in sentence
    assert ("cache" if name == "cache" else "hydra.run.dir") in sentence.partition(";")[2]
    assert "\n" not in sentence


def test_a_disk_that_fills_while_training_keeps_the_last_checkpoint(
    compose_job: ComposeJob, tmp_path: Path, faults: Faults
) -> None:
    job = compose_job(*SMALL, "data=digits", "trainer.max_steps=10", directory=tmp_path / "run")
    saved = 0

    def fails(path: str) -> bool:
        nonlocal saved
        saved += "last.ckpt" in path
        return saved > 1

    faults.number, faults.fails = errno.ENOSPC, fails
    with pytest.raises((StorageError, OSError)):
        run(job)
    assert read_checkpoint(job.directory / "checkpoints" / "last.ckpt")["global_step"] == 5
    assert not [file for file in find_checkpoints(job.directory) if file.stat().st_size == 0]
    assert not [*job.directory.rglob("*.partial")]


# The sentence


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"),
     (errno.EACCES, "no permission"), (errno.EFBIG, "ulimit -f")],
)  # fmt: skip
def test_reasons(number: int, reason: str, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "run" / "a"))
    sentence = explain_disk_error(error, {"hydra.run.dir": tmp_path / "run", "cache": tmp_path / "cache"})
    assert sentence is not None
    assert sentence.startswith(f"{tmp_path / 'run' / 'a'} cannot be written: ")
    assert reason in sentence
    assert "use another hydra.run.dir. Files saved before are intact." in sentence


def test_an_error_that_names_no_file_is_of_the_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "cache"
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 100 if Path(place) == full else 10**9))
    full.mkdir()
    sentence = explain_disk_error(
        OSError(errno.ENOSPC, "No space left on device"), {"hydra.run.dir": tmp_path, "cache": full}
    )
    assert sentence is not None
    assert sentence.startswith(f"{full} cannot be written: the disk is full; free some space, or use another cache.")


def test_what_libraries_make_of_it() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="written") as caught:
        np.arange(10**6).tofile(full)
    assert explain_disk_error(caught.value, {"cache": Path()}) is not None
    from tokenizers import Tokenizer, models

    with pytest.raises(Exception, match="os error") as rust:
        Tokenizer(models.BPE()).save("/dev/full")
    assert explain_disk_error(rust.value, {"cache": Path()}) is not None


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "x"), ValueError("os error 28"), OSError("x")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert explain_disk_error(error, {}) is None
    with pytest.raises(type(error)), explaining_disk_errors({}):
        raise error


def test_outside_of_a_run_it_is_a_sentence_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/somewhere/multirun.yaml")

    with pytest.raises(SystemExit) as caught:
        cli._friendly(command)
    assert caught.value.code == 1
    assert "/somewhere/multirun.yaml cannot be written: the file system is read-only" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a") as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    with atomic_file(tmp_path / "a") as file:
        file.write(b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]

"""Checkpoint files: whole or not at all, verified, and still found when the run directory is elsewhere."""

import contextlib
import logging
import os
import resource
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer.errors import RunError
from xformer.runs.checkpoints import (
    CheckpointFiles,
    find_checkpoints,
    read_checkpoint,
    readable_checkpoints,
    write_checkpoint,
)
from xformer.runs.storage import explain_disk_error
from xformer.runs.summary import FILE, read_summary
from xformer.training.run import run

STATE = {"state_dict": {"weight": torch.arange(300.0), "bias": torch.ones(3)}, "global_step": 7, "name": "läng"}
EVERY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(content: dict[str, Any]) -> None:
    assert content.keys() == STATE.keys()
    assert torch.equal(content["state_dict"]["weight"], torch.arange(300.0))
    assert (content["global_step"], content["name"]) == (7, "läng")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("sealed") / "a.ckpt"
    write_checkpoint(file, STATE)
    return file.read_bytes()


def test_others_read_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.ckpt"
    write_checkpoint(file, STATE)
    assert_same(read_checkpoint(file))
    assert_same(torch.load(file, weights_only=True))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    assert [path.name for path in file.parent.iterdir()] == ["a.ckpt"]


@EVERY
@given(data=st.data())
def test_a_flipped_bit_is_detected_wherever_it_is(data: st.DataObject, sealed: bytes, tmp_path: Path) -> None:
    position = data.draw(st.integers(0, 8 * len(sealed) - 1))
    damaged = bytearray(sealed)
    damaged[position // 8] ^= 1 << position % 8
    (tmp_path / "a.ckpt").write_bytes(damaged)
    with pytest.raises(RunError, match=r"a\.ckpt cannot be read \(.*\); name another"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_detected_in_every_byte_of_the_end(bit: int, sealed: bytes, tmp_path: Path) -> None:
    for position in range(len(sealed) - 100, len(sealed)):  # the directory's end, the checksum and its length
        damaged = bytearray(sealed)
        damaged[position] ^= 1 << bit
        (tmp_path / "a.ckpt").write_bytes(damaged)
        with pytest.raises(RunError, match="cannot be read"):
            read_checkpoint(tmp_path / "a.ckpt")


@EVERY
@given(data=st.data())
def test_a_file_that_was_cut_is_detected(data: st.DataObject, sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(sealed[: data.draw(st.integers(0, len(sealed) - 1))])
    with pytest.raises(RunError, match="cannot be read"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_file_of_an_earlier_version_is_read_and_its_content_checked(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    torch.save(STATE, file)
    assert_same(read_checkpoint(file))
    content = file.read_bytes()
    at = content.index(torch.arange(300.0).numpy().tobytes())
    file.write_bytes(content[: at + 5] + bytes([content[at + 5] ^ 4]) + content[at + 6 :])
    with pytest.raises(RunError, match="its checksum does not match"):
        read_checkpoint(file)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    write_checkpoint(tmp_path / "a.ckpt", {"a": Runs()})
    with pytest.raises(RunError, match="cannot be read"):
        CheckpointFiles().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not (tmp_path / "ran").exists()


@contextlib.contextmanager
def longest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@EVERY
@given(data=st.data())
def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(
    data: st.DataObject, sealed: bytes, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "last.ckpt", STATE)
    with pytest.raises(OSError, match="too large") as caught:  # noqa: SIM117 - the limit is this file's alone
        with longest_file(data.draw(st.integers(0, len(sealed) - 1))):
            write_checkpoint(tmp_path / "last.ckpt", {**STATE, "global_step": 8})
    sentence = explain_disk_error(caught.value, {"hydra.run.dir": tmp_path})
    assert sentence is not None
    assert sentence.startswith(f"{tmp_path / 'last.ckpt'} cannot be written: ")
    assert "hydra.run.dir" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert_same(read_checkpoint(tmp_path / "last.ckpt"))


def test_temporary_files_have_no_part_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", None)
    CheckpointFiles().save_checkpoint(STATE, tmp_path / "a.ckpt")
    assert_same(CheckpointFiles().load_checkpoint(tmp_path / "a.ckpt"))


# In a run


ENDING_WORSE = [*SMALL, *SMALL_LISTOPS, "optimizer.lr=0.5", "trainer.gradient_clip_val=null", "schedule=constant"]


def test_a_run_that_was_moved_goes_on_with_its_best(compose_job: ComposeJob, tmp_path: Path) -> None:
    for name in ("stayed", "moved"):
        run(compose_job(*ENDING_WORSE, "trainer.max_steps=5", directory=tmp_path / name))
    shutil.move(tmp_path / "moved", tmp_path / "elsewhere")
    for name in ("stayed", "elsewhere"):
        run(compose_job(*ENDING_WORSE, "trainer.max_steps=10", "resume=true", directory=tmp_path / name))
    here, there = (read_summary(tmp_path / name) for name in ("stayed", "elsewhere"))
    assert here.monitor is not None
    assert here.monitor.step == 5  # else there is nothing to forget
    assert (there.monitor, there.metrics) == (here.monitor, here.metrics)
    names = [{file.name for file in find_checkpoints(tmp_path / name)} for name in ("stayed", "elsewhere")]
    assert names[0] == names[1] == {"step-5.ckpt", "last.ckpt"}


def test_nothing_that_is_read_again_names_the_runs_own_place(compose_job: ComposeJob, tmp_path: Path) -> None:
    job = compose_job(*SMALL, *SMALL_LISTOPS)
    run(job)
    own = str(job.directory)

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from (*texts(key), *texts(item))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from texts(item)
        elif isinstance(value, str):
            yield value

    assert find_checkpoints(job.directory)
    for file in find_checkpoints(job.directory):
        assert [text for text in texts(torch.load(file, weights_only=True)) if own in text] == []
    written = [file for file in job.directory.rglob("*") if file.is_file() and file.suffix != ".ckpt"]
    assert {"config.yaml", "summary.json", "metrics.csv", "data.json"} <= {file.name for file in written}
    assert [file.name for file in written if own.encode() in file.read_bytes()] == []


def test_a_state_of_an_earlier_version_is_found_where_the_file_is(tmp_path: Path) -> None:
    old = "/home/somebody/run/checkpoints"
    keeper = {
        "dirpath": old,
        "best_model_path": f"{old}/step-5.ckpt",
        "kth_best_model_path": f"{old}/step-5.ckpt",
        "last_model_path": "",
        "best_k_models": {f"{old}/step-5.ckpt": torch.tensor(1.0)},
    }
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"callbacks": {"keeper": keeper, "other": {"dirpath": old}}}, file)
    states = read_checkpoint(file)["callbacks"]
    best = str(tmp_path / "checkpoints" / "step-5.ckpt")
    assert (states["keeper"]["best_model_path"], states["keeper"]["dirpath"]) == (best, str(file.parent))
    assert (list(states["keeper"]["best_k_models"]), states["keeper"]["last_model_path"]) == ([best], "")
    assert states["other"] == {"dirpath": old}


def test_the_next_older_one_is_taken_where_the_newest_is_damaged(
    tmp_path: Path, sealed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = sealed[:500] + bytes([sealed[500] ^ 1]) + sealed[501:]
    for age, (name, content) in enumerate({"newest": damaged, "newer": b"", "good": sealed, "old": sealed}.items()):
        file = tmp_path / "checkpoints" / f"{name}.ckpt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        os.utime(file, ns=(100 - age, 100 - age))
    with caplog.at_level(logging.WARNING):
        file, content = next(readable_checkpoints(tmp_path))
    assert file.name == "good.ckpt"
    assert_same(content)
    newest = tmp_path / "checkpoints" / "newest.ckpt"
    assert f"{newest} cannot be read (its checksum does not match). The next older one is tried." in caplog.text


def test_a_cell_whose_checkpoints_are_all_damaged_starts_again(
    compose_job: ComposeJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = compose_job(*SMALL, *SMALL_LISTOPS, "skip_finished=true")
    run(job)
    (job.directory / FILE).unlink()
    before = torch.load(job.directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for file in find_checkpoints(job.directory):
        file.write_bytes(file.read_bytes()[:1000])
    run(compose_job(*SMALL, *SMALL_LISTOPS, "skip_finished=true"))
    assert "starts again" in caplog.text
    after = read_checkpoint(job.directory / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert read_summary(job.directory).status == "finished"
    with pytest.raises(RunError, match="has the checkpoints of an earlier run"):
        run(compose_job(*SMALL, *SMALL_LISTOPS))

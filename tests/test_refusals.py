"""A refused command changes no byte of a run directory: over every kind of refusal, and every state of a run."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, Command, ComposeJob
from xformer.config.redact import resolved_config
from xformer.errors import ConfigError, DataError, IncompatibleError, RunError, XformerError
from xformer.runs.checkpoints import FOLDER
from xformer.runs.job import CONFIG_FILE
from xformer.runs.lock import FILE as LOCK
from xformer.runs.open_run import open_run
from xformer.runs.recorded_run import read_run
from xformer.runs.summary import FILE
from xformer.runs.sweep import SweepCallback
from xformer.training import rerun
from xformer.training.resume import expand_resume
from xformer.training.run import run

ROOT = Path(__file__).parents[1]
LISTOPS = [*SMALL, *SMALL_LISTOPS]
HELD = json.dumps({"host": socket.gethostname(), "pid": 1, "since": "2026-01-01 00:00:00"})  # by nobody who lives
LONGER = ["resume=true", "trainer.max_steps=10"]


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file and folder: its name, what is in it, and when it was written."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in (directory, *directory.rglob("*"))
    }


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


STATES: dict[str, Callable[[Path], object]] = {
    "finished": lambda run: None,
    "finished without checkpoints": lambda run: shutil.rmtree(run / FOLDER),
    "stopped": lambda run: _edit(run / FILE, status="interrupted", error="Stopped by Ctrl-C.", metrics={}),
    "failed": lambda run: _edit(run / FILE, status="failed", error="The loss is nan.", metrics={}),
    "killed": lambda run: (_edit(run / FILE, status="running", metrics={}), (run / LOCK).write_text(HELD)),
    "killed in an earlier version": lambda run: ((run / FILE).unlink(), (run / LOCK).unlink()),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def earlier(kept: Path, compose_job: ComposeJob, tmp_path: Path) -> Callable[[str], Path]:
    """A run directory in one of the states."""

    def make(state: str) -> Path:
        if not (kept / "run").exists():
            run(compose_job(*LISTOPS, "seed=3", directory=kept / "run"))
        copy = Path(shutil.copytree(kept / "run", tmp_path / state / "run"))
        STATES[state](copy)
        return copy

    return make


def _other_processes(directory: Path) -> None:
    for file in (directory / FOLDER).glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        content["exact_resume"]["random"] *= 2
        torch.save(content, file)


def _other_data(directory: Path) -> None:
    if (directory / FILE).exists():
        _edit(directory / FILE, data_fingerprint="of other data")


def _damage(text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / CONFIG_FILE).write_text(text)


# What is typed beside `seed=3`, what becomes of the directory before, what the environment says, and how it is refused.
REFUSALS: dict[str, tuple[list[str], Callable[[Path], object], dict[str, str], str]] = {
    "the same command": ([], lambda _: None, {}, r"earlier run|finished run"),
    "another seed": (["seed=4"], lambda _: None, {}, r"earlier run|finished run"),
    "a bad value": (["size.heads=5"], lambda _: None, {}, "heads"),
    "a bad value, resumed": (["resume=true", "size.heads=5"], lambda _: None, {}, "heads"),
    "a bad type": (["optimizer.lr=fast"], lambda _: None, {}, r"optimizer\.lr"),
    "a bad key": (["+optimizer.speed=1"], lambda _: None, {}, r"optimizer\.speed is not a parameter"),
    "what does not go together": (["architecture=decoder", "attention=linformer"], lambda _: None, {}, "does not go"),
    "no weights to start from": (["init_from=/nowhere"], lambda _: None, {}, "is not a directory"),
    "relabelled": (["resume=true", "seed=7", "optimizer.lr=0.3"], lambda _: None, {}, "seed was 3 and is 7; opt"),
    "another attention": (["resume=true", "attention=linformer"], lambda _: None, {}, r"attention(\._target_)? was"),
    "another dropout": (["resume=true", "architecture.dropout=0.5"], lambda _: None, {}, "dropout was 0.1 and is 0.5"),
    "a shorter run": (["resume=true", "trainer.max_steps=3"], lambda _: None, {}, "max_steps was 5 and is 3"),
    "other data": (LONGER, _other_data, {}, "was trained on other data"),
    "more processes than launched": (LONGER, lambda _: None, {"WORLD_SIZE": "2"}, "WORLD_SIZE=2 processes were"),
    "fewer processes than before": (LONGER, _other_processes, {}, "saved by 2 processes and cannot be resumed"),
    "a logger that cannot be": ([*LONGER, "logger=wandb"], lambda _: None, {"WANDB_MODE": "maybe"}, "WANDB_MODE=maybe"),
    "a device that is not there": ([*LONGER, "trainer.accelerator=mps"], lambda _: None, {}, "mps|MPS"),
    "somebody else's configuration": ([], _damage("name: theirs\n"), {}, "earlier run|no seed"),
    "a damaged configuration": (["resume=true"], _damage("a: [1"), {}, r"config\.yaml is damaged"),
    "a cell of other settings": (["skip_finished=true", "seed=4"], lambda _: None, {}, "seed was 3 and is 4"),
    "a cell of a damaged one": (["skip_finished=true"], _damage("\0"), {}, r"config\.yaml is damaged"),
}
ANYWAY = r"no readable checkpoint"  # is what is said first where there is none


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("state", [pytest.param(s, marks=[] if s == "finished" else pytest.mark.slow) for s in STATES])
def test_a_refusal_changes_no_byte(
    kind: str, state: str, earlier: Callable[[str], Path], compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, spoil, environment, said = REFUSALS[kind]
    directory = earlier(state)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    spoil(directory)
    before = tree(directory)
    known = kind != "other data" or (directory / FILE).exists()  # an earlier version noted the data at the end alone
    if known:
        with pytest.raises(Exception, match=said if (directory / FOLDER).exists() else f"{said}|{ANYWAY}") as caught:
            run(compose_job(*LISTOPS, "seed=3", *words, directory=directory))
        assert kind == "a device that is not there" or isinstance(caught.value, XformerError)
    assert tree(directory) == before
    assert kind.startswith(("somebody", "a damaged", "a cell of a damaged")) or read_run(directory).seed == 3


def test_what_was_finished_can_be_evaluated_after_a_refusal(
    earlier: Callable[[str], Path], compose_job: ComposeJob
) -> None:
    directory = earlier("finished")
    with pytest.raises(RunError, match="earlier run"):
        run(compose_job(*LISTOPS, "seed=3", directory=directory))
    assert open_run(directory).summary.status == "finished"


def test_a_skipped_combination_is_not_written_over_a_run(
    earlier: Callable[[str], Path], compose_job: ComposeJob
) -> None:
    directory = earlier("finished")
    before = tree(directory)
    words = ["architecture=decoder", "attention=linformer", "on_incompatible=skip"]
    assert run(compose_job(*LISTOPS, *words, directory=directory, sweep=True)) is None
    assert tree(directory) == before


@pytest.mark.parametrize("words", [["resume=true"], ["skip_finished=true"]])
def test_a_finished_run_is_left_as_it_is_and_said_to_be(
    words: list[str], earlier: Callable[[str], Path], compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = earlier("finished")
    before = tree(directory)
    best = run(compose_job(*LISTOPS, "seed=3", *words, "trainer.log_every_n_steps=2", directory=directory))
    assert tree(directory) == before
    assert best == read_run(directory).value("val/accuracy")
    assert "Already finished" in capsys.readouterr().out


TEXT = [*SMALL, "task=language_modeling", "data.block=16", "tokenizer=byte"]


def test_resumed_with_data_that_are_gone_or_others(compose_job: ComposeJob, tmp_path: Path) -> None:
    text, directory = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("One line of a text, and another one of it. " * 60)
    run(compose_job(*TEXT, f"data.source.files={text}"))
    before = tree(directory)
    text.write_text("Another text, and no line of it is the same. " * 60)
    with pytest.raises(RunError, match="was trained on other data"):
        run(compose_job(*TEXT, f"data.source.files={text}", *LONGER))
    text.unlink()
    with pytest.raises(DataError):
        run(compose_job(*TEXT, f"data.source.files={text}", *LONGER))
    assert tree(directory) == before


def test_what_is_no_runs_is_left_alone(compose_job: ComposeJob, tmp_path: Path) -> None:
    theirs = tmp_path / "run"
    (theirs / "folder").mkdir(parents=True)
    (theirs / "notes.txt").write_text("theirs")
    before = tree(theirs)
    with pytest.raises(
        RunError, match=r"holds files that are not a run's \(folder, notes\.txt\); use a new directory, or an"
    ):
        run(compose_job(*LISTOPS))
    with pytest.raises(RunError, match="no readable checkpoint"):
        run(compose_job(*LISTOPS, "resume=true"))
    with pytest.raises(ConfigError):
        run(compose_job(*LISTOPS, "size.heads=5"))
    assert tree(theirs) == before
    (theirs / FILE).write_text('{"somebody": "else\'s"}')
    before = tree(theirs)
    with pytest.raises(RunError, match=r"is not a run's summary.*; use another hydra\.run\.dir\.$"):
        run(compose_job(*LISTOPS))
    assert tree(theirs) == before


def test_a_first_refusal_is_recorded_and_the_mended_command_takes_its_place(
    compose_job: ComposeJob, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        run(compose_job(*LISTOPS, "size.heads=5"))
    assert (read_run(tmp_path / "run").summary.status, sorted(tree(tmp_path / "run"))) == ("failed", [".", FILE])
    before = tree(tmp_path / "run")
    with pytest.raises(IncompatibleError):
        run(compose_job(*LISTOPS, "architecture=decoder", "attention=linformer"))
    assert tree(tmp_path / "run") == before
    run(compose_job(*LISTOPS, "skip_finished=true"))
    assert read_run(tmp_path / "run").summary.status == "finished"


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again_and_no_other_takes_its_place(
    earlier: Callable[[str], Path], compose_job: ComposeJob
) -> None:
    directory = earlier("killed")
    shutil.rmtree(directory / FOLDER)
    before = tree(directory)
    with pytest.raises(RunError, match=r"seed was 3 and is 4\); move it away, or use another hydra\.run\.dir\.$"):
        run(compose_job(*LISTOPS, "seed=4", directory=directory))
    assert tree(directory) == before
    run(compose_job(*LISTOPS, "seed=3", directory=directory))
    assert read_run(directory).summary.status == "finished"


def test_a_run_made_again_leaves_another_alone(
    earlier: Callable[[str], Path], compose_job: ComposeJob, tmp_path: Path
) -> None:
    directory = earlier("finished")
    before = tree(directory)
    job = compose_job(*LISTOPS, "seed=4", directory=tmp_path / "other")
    rerun.write_rerun(directory.parent, resolved_config(job.config), job.choices, job.overrides, None)
    with pytest.raises(RunError, match="seed was 3 and is 4"):
        run(rerun.read_rerun(directory.parent))
    assert tree(directory) == before


def test_the_directory_to_resume_is_checked_before_anything_is_made(
    earlier: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = earlier("finished")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["resume=nowhere"], "resume=nowhere is not a directory"),
        (["resume=empty"], "resume=empty holds no run"),
        (["resume=finished/run", "hydra.run.dir=other"], r"leave hydra\.run\.dir out"),
        (["-m", "resume=finished/run", "seed=0,1"], "leave -m out"),
    ):
        with pytest.raises(XformerError, match=said):
            expand_resume(words)
    assert tree(tmp_path) == before
    assert tree(directory)


def test_a_sweep_is_not_put_into_a_run(earlier: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    directory = earlier("finished")
    before = tree(directory)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(directory)}}})
    with pytest.raises(SystemExit, match="1"):
        SweepCallback().on_multirun_start(config)
    assert "is the directory of a run; use another." in " ".join(capsys.readouterr().err.split())
    assert tree(directory) == before


def test_who_is_refused_by_the_command_line_leaves_the_tree_as_it_was(
    earlier: Callable[[str], Path], cache: Path, xformer: Command
) -> None:
    """What Hydra itself would write, while another process holds the directory."""
    directory = earlier("finished")
    hold = "import sys, pathlib, time; from xformer.runs import lock; "
    hold += "lock.RunLock(pathlib.Path(sys.argv[1])).claim(); print(flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(directory)], stdout=subprocess.PIPE, env=environment
    ) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            before = tree(directory)
            before.pop(LOCK)  # its holder gives signs of life
            code, _, told = xformer("train", *LISTOPS, f"cache={cache}", f"hydra.run.dir='{directory}'")
        finally:
            holder.kill()
    after = tree(directory)
    after.pop(LOCK)
    assert (code, after) == (1, before)
    assert f"is in use by process {holder.pid}" in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["notes.txt", "notes.txt/run"])
def test_a_file_is_no_directory_of_a_run(name: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").write_text("theirs")
    before = tree(tmp_path)
    words = [sys.executable, str(ROOT / "train.py"), *LISTOPS, f"cache={cache}", f"hydra.run.dir={name}"]
    refused = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (refused.returncode, tree(tmp_path)) == (1, before)
    assert "notes.txt" in refused.stderr
    assert "Traceback" not in refused.stderr

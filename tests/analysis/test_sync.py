"""Offline runs go to the service once."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.analysis.service import Remote, Service
from xformer import cli
from xformer.analysis import sync as module
from xformer.analysis import wandb_runs
from xformer.analysis.sync import Online, offline, sync
from xformer.errors import DataError, RunError


class Fake:
    """A service that keeps what it is given, and marks it as `wandb sync` does."""

    def __init__(self, *ids: str):
        self.ids, self.asked = {*ids}, 0

    def known(self, project: str, entity: str | None, ids: Collection[str]) -> set[str]:
        assert (project, entity) == ("lab", "me")
        self.asked += 1
        return self.ids & {*ids}

    def upload(self, file: Path) -> None:
        if file.stem == "run-broken":
            raise RunError("The connection broke.")
        assert file.stem.removeprefix("run-") not in self.ids
        self.ids.add(file.stem.removeprefix("run-"))
        file.with_name(f"{file.name}.synced").touch()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three cells with an offline run each, whose files say what their names say."""
    monkeypatch.setattr(module, "offline", lambda file: module.Offline(file, file.stem[4:], "lab", "me"))
    for cell, name in enumerate("abc"):
        add(tmp_path / str(cell), name)
    return tmp_path


def add(cell: Path, name: str) -> Path:
    file = cell / "wandb" / f"offline-run-20260101_00000{len(name)}-{name}" / f"run-{name}.wandb"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def uploaded(paths: list[Path], service: Fake) -> str:
    return "".join(directory.name[-1] for directory, now in sync(paths, service) if now)


def test_what_is_there_is_not_uploaded_again(study: Path) -> None:
    service = Fake("b")  # uploaded from another copy of the directory
    assert uploaded([study], service) == "ac"
    assert uploaded([study], service) == ""
    add(study / "0", "d")  # the cell was continued
    assert uploaded([study, study / "0"], service) == "d"
    assert service.ids == {*"abcd"}


def test_nothing_is_asked_where_everything_was_uploaded_from_here(study: Path) -> None:
    service = Fake()
    uploaded([study], service)
    assert uploaded([study], service) == ""
    assert service.asked == 1


def test_an_upload_that_breaks_off_is_taken_up(study: Path) -> None:
    broken, service = add(study / "1", "broken"), Fake()
    with pytest.raises(RunError, match="The connection broke"):
        uploaded([study], service)
    broken.unlink()
    assert uploaded([study], service) == "c"


def test_a_directory_without_offline_runs_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no offline run .*WANDB_MODE=offline\."):
        uploaded([tmp_path], Fake())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("real")
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(mode="offline", dir=directory, project="lab", entity="me", id="abc", settings=settings)
    run.finish()
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return file


def test_a_file_says_whose_it_is(real: Path, tmp_path: Path) -> None:
    assert offline(real) == module.Offline(real, "abc", "lab", "me")
    (tmp_path / "run-x.wandb").write_text("nothing")
    with pytest.raises(DataError, match=r"is no offline run that W&B can read"):
        offline(tmp_path / "run-x.wandb")


def test_the_commands_are_ones_that_wandb_takes(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--dry-run` in addition, for there is no network here."""
    said = []

    def dry(command: list[str], **options: Any) -> Any:
        done = start([*command, "--dry-run"], **options)
        said.append(done.stdout + done.stderr)
        return done

    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", dry)
    with pytest.raises(RunError, match="was not uploaded"):
        Online().upload(real)
    assert "Would sync 1 run(s)" in said[0]
    assert real.name in said[0]


def test_the_service_is_asked_for_the_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(wandb_runs, "has_key", lambda: True)
    remotes = [Remote(f"me/lab/{name}", {"config": {}, "summaryMetrics": {}, "state": "finished"}, []) for name in "ab"]
    monkeypatch.setattr(wandb, "Api", Service(*remotes))
    assert Online().known("lab", "me", ["b", "c"]) == {"b"}
    assert Online().known("lab", None, ["a"]) == {"a"}
    assert Online().known("new", "me", ["a"]) == set()


def test_without_a_key_the_command_says_what_to_do(
    real: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_runs, "has_key", lambda: False)
    monkeypatch.setattr(sys, "argv", ["xformer", "sync", str(real.parents[2])])
    with pytest.raises(SystemExit):
        cli.main()
    assert "asks for a key: wandb login, or WANDB_API_KEY." in " ".join(capsys.readouterr().err.split())

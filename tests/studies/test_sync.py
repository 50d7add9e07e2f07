"""Offline runs go to the service once."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.studies.service import Remote, Service
from xformer import cli
from xformer.errors import DataError, RunError
from xformer.studies import sync as module
from xformer.studies import wandb_runs
from xformer.studies.sync import WandbService, offline_run, sync_runs

STEPS = 5


class Fake:
    """A service that keeps what it is given, and marks it as `wandb sync` does."""

    def __init__(self, *ids: str):
        self.curves = {name: [*range(STEPS)] for name in ids}
        self.asked = 0

    def reached(self, project: str, entity: str | None, ids: Collection[str]) -> dict[str, int]:
        assert (project, entity) == ("lab", "me")
        self.asked += 1
        return {name: curve[-1] for name, curve in self.curves.items() if name in ids}

    def upload(self, file: Path, *, append: bool) -> None:
        if file.stem == "run-broken":
            raise RunError("The connection broke.")
        name, steps = file.stem.removeprefix("run-"), steps_of(file)
        self.curves[name] = [*(self.curves[name] if append else []), *steps]
        file.with_name(f"{file.name}.synced").touch()


def steps_of(file: Path) -> range:
    """What a file of the study holds, by the second in its name: each goes on for some steps."""
    part = int(file.parent.name.split("_")[1].split("-")[0]) - 1
    return range(STEPS * part, STEPS * (part + 1))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three cells with an offline run each, whose files say what their names say."""
    monkeypatch.setattr(
        module, "offline_run", lambda file: module.OfflineRun(file, file.stem[4:], steps_of(file)[-1], "lab", "me")
    )
    for cell, name in enumerate("abc"):
        add(tmp_path / str(cell), name)
    return tmp_path


def add(cell: Path, name: str, *, second: int = 1, mode: str = "offline-run") -> Path:
    file = cell / "wandb" / f"{mode}-20260101_00000{second}-{name}" / f"run-{name}.wandb"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def uploaded(paths: list[Path], service: Fake) -> str:
    return "".join(directory.name[-1] for directory, now in sync_runs(paths, service) if now)


def test_what_is_there_is_not_uploaded_again(study: Path) -> None:
    service = Fake("b")  # uploaded from another copy of the directory
    assert uploaded([study], service) == "ac"
    assert uploaded([study], service) == ""
    add(study / "0", "d")  # the cell was continued
    assert uploaded([study, study / "0"], service) == "d"
    assert {*service.curves} == {*"abcd"}


def test_a_resumed_run_is_one_curve(study: Path) -> None:
    service = Fake()
    add(study / "0", "a", second=2)
    assert uploaded([study], service) == "aabc"
    assert service.curves["a"] == [*range(2 * STEPS)]
    add(study / "0", "a", second=3)  # resumed once more, after it was uploaded
    assert uploaded([study], service) == "a"
    assert service.curves["a"] == [*range(3 * STEPS)]
    assert uploaded([study], service) == ""


def test_what_was_resumed_without_a_step_is_uploaded_for_its_end(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Fake()
    uploaded([study], service)
    last = add(study / "0", "a", second=2)
    monkeypatch.setattr(module, "offline_run", lambda file: module.OfflineRun(file, "a", STEPS - 1, "lab", "me"))
    assert [directory for directory, now in sync_runs([study], service) if now] == [last.parent]


def test_what_was_uploaded_from_a_copy_is_left_out_file_by_file(study: Path) -> None:
    add(study / "0", "a", second=2)
    service = Fake("a")  # the first part alone
    assert [directory.name[-3:] for directory, now in sync_runs([study / "0"], service) if now] == ["2-a"]
    assert service.curves["a"] == [*range(2 * STEPS)]


def test_an_online_run_that_went_on_offline_is_gone_on_with(study: Path) -> None:
    add(study / "3", "o", mode="run")
    add(study / "3", "o", second=2)
    service = Fake("o")
    assert uploaded([study / "3"], service) == "o"
    assert service.curves["o"] == [*range(2 * STEPS)]


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
    run.log({"loss": 1.0}, step=7)
    run.finish()
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return file


def test_a_file_says_whose_it_is(real: Path, tmp_path: Path) -> None:
    assert offline_run(real) == module.OfflineRun(real, "abc", 7, "lab", "me")
    (tmp_path / "run-x.wandb").write_text("nothing")
    with pytest.raises(DataError, match=r"is not an offline run that W&B can read"):
        offline_run(tmp_path / "run-x.wandb")


def test_the_commands_are_ones_that_wandb_takes(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--dry-run` in addition, for there is no network here."""
    reasons, resumed = [], []

    def dry(command: list[str], **options: Any) -> Any:
        done = start([*command, "--dry-run"], **options)
        reasons.append(done.stdout + done.stderr)
        ask = "import wandb; print(wandb.setup().settings.resume)"
        resumed.append(start([sys.executable, "-c", ask], **options).stdout.strip())
        return done

    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", dry)
    for append in (False, True):
        with pytest.raises(RunError, match="was not uploaded"):
            WandbService().upload(real, append=append)
    assert resumed == ["None", "allow"]
    assert "Would sync 1 run(s)" in reasons[0]
    assert real.name in reasons[0]


def test_the_service_is_asked_for_the_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(wandb_runs, "has_key", lambda: True)
    remotes = [
        Remote(f"me/lab/{name}", {"config": {}, "summaryMetrics": {"_step": 4}, "state": "finished"}, [])
        for name in "ab"
    ]
    monkeypatch.setattr(wandb, "Api", Service(*remotes))
    assert WandbService().reached("lab", "me", ["b", "c"]) == {"b": 4}
    assert WandbService().reached("lab", None, ["a"]) == {"a": 4}
    assert WandbService().reached("new", "me", ["a"]) == {}


def test_without_a_key_the_command_says_what_to_do(
    real: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_runs, "has_key", lambda: False)
    monkeypatch.setattr(sys, "argv", ["xformer", "sync", str(real.parents[2])])
    with pytest.raises(SystemExit):
        cli.main()
    assert "needs a key: wandb login, or WANDB_API_KEY." in " ".join(capsys.readouterr().err.split())

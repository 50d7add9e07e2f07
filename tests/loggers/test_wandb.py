import re
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.utilities import rank_zero_only

from tests.studies.service import offline_file, records
from xformer.errors import RunError
from xformer.loggers.wandb import effective_mode, tags, wandb_logger
from xformer.runs.summary import Summary

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_auto_is_offline_without_a_key() -> None:
    assert effective_mode("auto") == "offline"


def test_auto_is_online_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert effective_mode("auto") == "online"
    assert effective_mode("offline") == "offline"


def test_auto_is_online_with_a_key_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.wandb.ai")
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert effective_mode("auto") == "online"


@pytest.mark.parametrize(
    ("variable", "expected"), [("online", "online"), ("offline", "offline"), ("dryrun", "offline"), ("disabled",) * 2]
)
def test_the_variable_wins(variable: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert effective_mode("offline" if expected == "online" else "online") == expected


def test_a_bad_variable_or_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(RunError, match=r"logger\.wandb\.mode=offline"):
        effective_mode("auto")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(RunError, match="WANDB_MODE=sometimes"):
        effective_mode("auto")


def test_tags_are_cut_to_what_the_service_takes() -> None:
    assert tags({"attention": "linformer"}) == ["attention=linformer"]
    assert [len(tag) for tag in tags({"experiment": "x" * 100})] == [64]


def test_each_job_leaves_a_run_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, code in (("one", 0), ("two", 1)):
        directory = tmp_path / name
        directory.mkdir()
        config = {"model": {"width": 4, "key": "${oc.env:SECRET}"}}
        choices = {"attention": name}
        logger = wandb_logger(directory, config, choices, name, project="test", entity=None, group="study", mode="auto")
        try:
            logger.log_metrics({"train/loss": float(code), "tokens": 8.0}, step=3)
            logger.finalize("success")
        finally:
            logger.end(code)
        logger.end(code, Summary("finished"))  # a second time is harmless
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    for name, code in (("one", 0), ("two", 1)):
        found = records(offline_file(tmp_path / name))
        (run,) = [record["run"] for record in found if record["type"] == "run"]
        assert run["config"]["update"]["model"] == {"width": 4, "key": "${oc.env:SECRET}"}
        assert (run["display_name"], run["run_group"], run["job_type"]) == (name, "study", "train")
        assert run["tags"] == [f"attention={name}"]
        (item,) = [record["history"]["item"] for record in found if record["type"] == "history"]
        assert (item["train/loss"], item["tokens"], item["trainer/global_step"]) == (code, 8, 3)
        defined = [record["metric"] for record in found if record["type"] == "metric"]
        assert {"trainer/global_step", "tokens"} <= {metric.get("name") for metric in defined}
        assert [record["exit"]["exit_code"] for record in found if record["type"] == "exit"] == [code]


def test_auto_falls_back_to_offline_where_the_service_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def init(*, mode: str, **options: Any) -> Any:
        asked.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no network")
        return start(mode="disabled", **options)

    start = wandb.init
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    options: dict[str, Any] = {"project": "test", "entity": None, "group": None}
    wandb_logger(tmp_path, {}, {}, "name", mode="auto", **options).end(0)
    assert asked == ["online", "offline"]
    assert "logged offline" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"logger\.wandb\.mode=offline"):
        wandb_logger(tmp_path, {}, {}, "name", mode="online", **options)


def start(directory: Path, name: str = "name", **options: Any) -> Any:
    settings = {"project": "test", "entity": None, "group": None, "mode": "offline", **options}
    return wandb_logger(directory, {}, {}, name, **settings)


def test_a_resumed_run_is_the_same_run_with_one_curve(tmp_path: Path) -> None:
    for steps in (range(0, 4), range(2, 6)):  # the second time from a checkpoint of step 2
        logger = start(tmp_path)
        for step in steps:
            logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
            logger.log_metrics({"val/loss": float(step)}, step=step)
        logger.end(0)
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    rows = [row["history"]["item"] for file in files for row in records(file) if row["type"] == "history"]
    assert all(row["_step"] == row["trainer/global_step"] for row in rows)
    curve = {(row["trainer/global_step"], row["train/loss"], row["val/loss"]) for row in rows}
    assert curve == {(step, 1.0 / (step + 1), float(step)) for step in range(6)}


def test_an_online_run_is_resumed_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / "wandb" / "run-20260101_000000-abc").mkdir(parents=True)
    (tmp_path / "wandb" / "run-20260101_000000-abc" / "run-abc.wandb").touch()
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        asked.append(options)
        return begin(**{**options, "mode": "disabled"})

    begin = wandb.init
    monkeypatch.setattr(wandb, "init", init)
    for directory, mode in ((tmp_path, "online"), (tmp_path, "offline"), (tmp_path / "new", "online")):
        directory.mkdir(exist_ok=True)
        start(directory, mode=mode).end(0)
    assert [(given["id"], given["resume"]) for given in asked] == [("abc", "allow"), ("abc", None), (None, None)]


def test_what_is_on_the_command_line_is_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-998877")
    typed = ["train.py", "+logger.wandb.api_key=zzz111,zzz222", "data.source.files=tok-998877", "seed=1"]
    monkeypatch.setattr(sys, "argv", typed)
    start(tmp_path, "data.source.files=tok-998877,+a.api_key=zzz111").end(0)
    assert sys.argv is typed
    file = offline_file(tmp_path)
    (about,) = [row["environment"] for row in records(file) if "args" in row.get("environment", {})]
    assert about["args"] == ["+logger.wandb.api_key=***", "data.source.files=${oc.env:MY_TOKEN}", "seed=1"]
    for written in tmp_path.rglob("*"):
        if written.is_file():
            assert not re.search(b"998877|zzz", written.read_bytes()), written


def exit_codes(directory: Path) -> list[int]:
    return [record["exit"].get("exit_code", 0) for record in records(offline_file(directory)) if "exit" in record]


def test_a_run_that_ends_leaves_that_of_another_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = start(tmp_path / "one")
    two = start(tmp_path / "two")
    one.end(1)
    two.log_metrics({"train/loss": 1.0}, step=0)
    two.end(3)
    assert exit_codes(tmp_path / "two") == [3]


def test_a_run_that_breaks_as_it_starts_ends_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("xformer.loggers.wandb.WandbRunLogger", broken)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert wandb.run is None
    assert exit_codes(tmp_path) == [1]


def test_processes_but_the_first_have_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = start(tmp_path)
    logger.begin(Summary("running"))
    logger.end(0, Summary("finished"))
    assert wandb.run is None
    assert not any(tmp_path.iterdir())


def test_the_system_s_metrics_are_logged(tmp_path: Path) -> None:
    """The load, memory and power of processors and GPUs, which W&B samples beside the run unless it is told not to."""
    logger = wandb_logger(tmp_path, {}, {}, "run", project="p", entity=None, group=None, mode="offline")
    settings = logger.experiment.settings
    logger.end(0)
    assert settings.x_disable_stats is False
    assert settings.x_disable_machine_info is False

"""A study's findings as an artifact."""

import base64
import hashlib
from pathlib import Path

import pytest
import wandb

from tests.studies.service import offline_file, records
from xformer.errors import RunError
from xformer.loggers.wandb_artifact import log_study


def test_an_offline_file_holds_the_table_and_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    files = [tmp_path / name for name in ("runs.csv", "curves.svg", "README.md")]
    for file in files:
        file.write_text(f"this is {file.name}")
    where = tmp_path / "study"
    mode = log_study("attentions", files, project="lab", entity="me", directory=where, question="Which?")
    assert mode == "offline"
    found = records(offline_file(where))
    (run,) = [record["run"] for record in found if record["type"] == "run"]
    assert (run["run_group"], run["job_type"], run["display_name"]) == ("attentions", "record", "attentions: findings")
    (artifact,) = [
        record["request"]["log_artifact"]["artifact"] if record["type"] == "request" else record["artifact"]
        for record in found if "artifact" in str(record.get("request", "")) or record["type"] == "artifact"
    ]  # fmt: skip
    assert (artifact["name"], artifact["type"], artifact["description"]) == ("study-attentions", "study", "Which?")
    held = {entry["path"]: entry["digest"] for entry in artifact["manifest"]["contents"]}
    digests = {file.name: base64.b64encode(hashlib.md5(file.read_bytes()).digest()).decode() for file in files}
    assert held == digests
    assert [record["exit"].get("exit_code", 0) for record in found if record["type"] == "exit"] == [0]


def test_a_service_out_of_reach_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise wandb.errors.CommError("no network")

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(RunError, match=r"\(no network\); set WANDB_MODE=offline to store them for xformer sync"):
        log_study("attentions", [], project="lab", entity=None, directory=tmp_path, question="Which?")

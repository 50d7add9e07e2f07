"""Stands in for W&B's service: `wandb.Api` with its own `Run` objects, filled from directories or offline files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
import yaml
from wandb.apis import public

from xformer.loggers.wandb import RECORD, tags
from xformer.runs.metrics_table import read_metrics


class Remote(public.Run):
    """The real class, as the service's answer would fill it; its history is given, because that is asked for later."""

    def __init__(self, path: str, answer: dict[str, Any], history: list[dict[str, Any]]):
        entity, project, name = path.split("/")
        answer["config"] = json.dumps({key: {"value": value} for key, value in answer["config"].items()})
        answer["summaryMetrics"] = json.dumps(answer["summaryMetrics"])
        super().__init__(None, entity, project, name, {"group": None, "tags": [], **answer, "name": name}, lazy=False)
        self.rows = history

    def scan_history(self, keys: list[str] | None = None, **_: Any) -> Iterator[dict[str, Any]]:
        wanted = keys or []
        return ({key: row[key] for key in wanted} for row in self.rows if {*wanted} <= {*row})


class Service:
    """What `wandb.Api` returns."""

    def __init__(self, *remotes: Remote):
        self.remotes = list(remotes)
        self.default_entity = "me"

    def __call__(self, timeout: int) -> "Service":
        return self

    def runs(self, path: str, filters: dict[str, Any] | None = None, lazy: bool = True) -> list[Remote]:
        found = [remote for remote in self.remotes if f"{remote.entity}/{remote.project}" == path]
        if not found:
            raise ValueError(f"Could not find project {path}")
        fields = {"group": "group", "name": "id"}
        return [r for r in found if all(_holds(getattr(r, fields[k]), v) for k, v in (filters or {}).items())]

    def run(self, path: str) -> Remote:
        for remote in self.remotes:
            if "/".join(remote.path) == path:
                return remote
        raise wandb.errors.CommError(f"Could not find run <Run {path} (not found)>")


def _holds(value: Any, wanted: Any) -> bool:
    return value in wanted["$in"] if isinstance(wanted, dict) else value == wanted


def of_directory(path: str, directory: Path, group: str | None = None) -> Remote:
    """A run as it would have been logged from a directory of `make_run`."""
    config = yaml.safe_load((directory / "config.yaml").read_text())
    summary = json.loads((directory / "summary.json").read_text())
    began = {key: summary[key] for key in ("choices", "overrides", "seed", "git", "versions")}
    record = {"config": json.dumps(config), "directory": str(directory), **began}
    rows = [{"trainer/global_step": row.step, row.metric: row.value} for row in read_metrics(directory)]
    answer = {
        "config": {**config, RECORD: record}, "summaryMetrics": {RECORD: summary}, "state": summary["status"],
        "group": group, "tags": tags(summary["choices"]), "displayName": ",".join(summary["overrides"]),
    }  # fmt: skip
    return Remote(path, answer, rows)


def of_file(entity: str, file: Path) -> Remote:
    """A run as `wandb sync` would make it from an offline file."""
    found = records(file)
    start = next(record["run"] for record in found if record["type"] == "run")
    config, summary = dict(start["config"]["update"]), {}
    for record in found:
        config |= record.get("config", {}).get("update", {})
        summary |= record.get("summary", {}).get("update", {})
    codes = [record["exit"].get("exit_code", 0) for record in found if record["type"] == "exit"]
    answer = {
        "config": config, "summaryMetrics": summary, "group": start.get("run_group"), "tags": start.get("tags", []),
        "state": {0: "finished"}.get(codes[0], "failed") if codes else "crashed",
        "displayName": start["display_name"], "commit": start["git"]["commit"],
    }  # fmt: skip
    rows = [record["history"]["item"] for record in found if record["type"] == "history"]
    return Remote(f"{entity}/{start['project']}/{start['run_id']}", answer, rows)


def offline_file(directory: Path) -> Path:
    """The one offline file below a run directory."""
    (file,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    return file


def records(file: Path) -> list[dict[str, Any]]:
    """All that an offline file holds, as W&B's own reader tells it."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]

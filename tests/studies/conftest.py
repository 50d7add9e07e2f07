"""Run directories as a run leaves them, with numbers of our choice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from xformer.loggers.metrics_csv import MetricsCSV
from xformer.runs.summary import MonitoredMetric, Summary, write_summary

MakeRun = Callable[..., Path]
CURVE = (1, 2, 3)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run directory below `tmp_path/sweep`: seed, accuracy, attention and what else differs."""
    count = iter(range(1000))

    def make(value: float | None, *, seed: int, attention: str = "full", **other: Any) -> Path:
        number = next(count)
        directory = tmp_path / "sweep" / str(number)
        extra: dict[str, Any] = other.pop("config", {})
        choices = {"attention": attention, "position": "learned", "data": "listops", "experiment": "attentions"}
        node = {"_target_": f"xformer.attention.{attention}.X", "_partial_": True}
        config = {
            "seed": seed, "cache": ".cache", "data": {"pairs": 4}, "optimizer": {"lr": 0.001},
            "attention": node | ({"rank": 8} if attention == "linformer" else {}),
            "architecture": {"norm": "pre", "attention": node | ({"rank": 8} if attention == "linformer" else {})},
            "callbacks": {"checkpoint": {"dirpath": str(directory), "monitor": "val/accuracy"}},
        } | extra  # fmt: skip
        metrics = {"val/accuracy": value, "test/accuracy": value, "test/loss": None if value is None else 1 - value}
        fields: dict[str, Any] = {
            "status": "finished", "choices": choices, "overrides": [f"attention={attention}", f"seed={seed}"],
            "seed": seed, "metrics": metrics, "monitor": MonitoredMetric("val/accuracy", "max", value, 3),
            "trivial_baselines": {"chance": 0.1}, "parameters": 1000, "flops_per_token": 1e4, "tokens_seen": 500,
            "tokens_per_second": 100.0, "peak_memory_bytes": 10**8, "wall_seconds": 10.0,
            "git": {"commit": "c" * 40, "dirty": False}, "versions": {"torch": "2.13"},
            "hardware": {"cpu": "CPU", "cores": 2, "torch_threads": 1, "cuda": []}, "data_fingerprint": "f",
        } | other  # fmt: skip
        write_summary(directory, Summary(**fields))
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
        curve = MetricsCSV(directory)
        for step in CURVE:
            curve.log_metrics({"val/accuracy": (value or 0.0) * step / len(CURVE), "epoch": 0}, step)
        started = {"runtime": {"choices": choices}, "overrides": {"task": fields["overrides"]}}
        (directory / ".hydra").mkdir()
        (directory / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": started}))
        return directory

    return make


@pytest.fixture
def sweep(make_run: MakeRun, tmp_path: Path) -> Path:
    """Three attentions, three seeds: linformer is clearly worse, local is the same but for noise."""
    for seed, noise in enumerate((0.00, 0.05, 0.02)):
        make_run(0.80 + noise, seed=seed)
        make_run(0.60 + noise + 0.001 * seed, seed=seed, attention="linformer", parameters=1500)
        make_run(0.80 + noise + (0.01, -0.02, 0.012)[seed], seed=seed, attention="local")
    return tmp_path / "sweep"


@pytest.fixture
def size_runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two attentions at four sizes and three seeds: power laws, and linformer's advantage grows with scale."""
    for seed, noise in enumerate((0.00, 0.03, 0.01)):
        for size, parameters in enumerate((10_000, 40_000, 160_000, 640_000)):
            for name, exponent in (("full", 0.2), ("linformer", 0.3)):
                loss = 1.5 + (parameters / 10_000) ** -exponent + noise + 0.002 * ((seed + size) % 3)
                make_run(
                    loss, seed=seed, attention=name, parameters=parameters,
                    metrics={"val/loss": loss, "test/loss": loss}, monitor=MonitoredMetric("val/loss", "min", loss, 3),
                    config={"size": {"d_model": 2 ** (4 + size)}},
                )  # fmt: skip
    return tmp_path / "sweep"

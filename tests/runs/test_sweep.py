"""What the cells of a sweep know of it, and what is shown of it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, Command
from xformer.config.groups import CONF, groups
from xformer.runs import sweep
from xformer.runs.job import Job
from xformer.runs.summary import Summary, read_summary, write_summary
from xformer.training import console_report

ROOT = Path(__file__).parents[2]
FAST = [*SMALL, *SMALL_LISTOPS]


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XFORMER_SWEEP", "")
    monkeypatch.delenv("XFORMER_SWEEP")
    yield
    sweep.end_sweep()


def started(tmp_path: Path, *overrides: str) -> sweep.Sweep | None:
    """What is announced for a command line with -m."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        fixed = [override for override in overrides if override.startswith(("experiment=", "hydra/"))]
        config = compose("train", overrides=[*fixed, f"hydra.sweep.dir={tmp_path}"], return_hydra_config=True)
        typed = [override for override in overrides if not override.startswith("hydra/")]
        OmegaConf.set_readonly(config, False)
        config.hydra.overrides.task = typed
        sweep.SweepCallback().on_multirun_start(config)
    GlobalHydra.instance().clear()
    return sweep.current_sweep()


NEITHER = [option for option in groups()["attention"] if not option.startswith(("f", "l"))]


@pytest.mark.parametrize(
    ("typed", "cells", "varies"),
    [
        (["attention=full,linformer", "seed=0,1,2"], 6, ("attention", "seed")),
        (["size=tiny", "seed=range(4)"], 4, ("seed",)),
        (["attention=glob(*,exclude=[f*,l*])"], len(NEITHER), ("attention",)),
        (["attention=full,local", "attention=full"], 1, ()),
        (["attention@decoder_attention=full,local", "+x=choice(1,2)"], 4, ("attention@decoder_attention", "+x")),
        (["experiment=listops_attentions"], None, None),
    ],
)
def test_cells_are_counted_as_hydra_makes_them(
    typed: list[str], cells: int | None, varies: tuple[str, ...] | None, tmp_path: Path
) -> None:
    found = started(tmp_path, *typed)
    assert found is not None
    if cells is None:  # a study holds its own grid
        params = OmegaConf.load(CONF / "experiment" / "listops_attentions.yaml").hydra.sweeper.params
        assert set(found.varies) == {key for key, value in params.items() if "," in str(value) or "(" in str(value)}
        assert found.cells > 1
    else:
        assert (found.cells, found.varies) == (cells, varies)
    assert found.directory == str(tmp_path)
    assert found.at_once == 1


@pytest.mark.parametrize(("jobs", "expected"), [(2, 2), (9, 6), (-1, 4)])
def test_jobs_of_a_launcher_run_at_once(
    jobs: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "usable_cores", lambda: 4)
    launcher = OmegaConf.create({"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": jobs})
    assert sweep._at_once(launcher, 6) == expected
    for kind, number in (("LocalLauncher", 6), ("SlurmLauncher", 1), ("BasicLauncher", 1)):
        assert sweep._at_once(OmegaConf.create({"_target_": f"hydra_plugins.x.{kind}"}), 6) == number


def test_what_hydra_refuses_is_left_to_hydra(tmp_path: Path) -> None:
    assert started(tmp_path, "seed=range(") is None


def test_the_time_left_is_what_the_cells_so_far_took(tmp_path: Path) -> None:
    now = time.time()
    under_way = sweep.Sweep(str(tmp_path), 12, (), 1, now - 120)
    assert under_way.seconds_left(0) is None
    for number in range(2):
        write_summary(tmp_path / str(number), Summary("finished"))
    write_summary(tmp_path / "2", Summary("running"))  # this one
    old = write_summary(tmp_path / "3", Summary("finished"))  # of an earlier sweep into this directory
    os.utime(old, (now - 1000, now - 1000))
    assert under_way.seconds_left(2) == pytest.approx(600, rel=0.05)
    assert console_report.sweep_progress(under_way, 2) == "cell 3 of 12, 10 minutes left"


def test_what_varies_comes_first_in_a_name() -> None:
    fixed = [f"optimizer.key_{number}=0.12345678901234" for number in range(8)]
    names = set()
    for attention in ("full", "linformer"):
        overrides = [*fixed, f"attention={attention}", "seed=1"]
        job = Job(DictConfig({}), Path(), {}, overrides, sweep=True, varies=("seed", "attention"))
        assert job.varied == [f"attention={attention}", "seed=1"]
        assert sorted(job.name.split(",")) == sorted(overrides)
        names.add(job.name[:128])
    assert len(names) == 2


def train(tmp_path: Path, cache: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    multirun = ["-m"] if "-m" in overrides else []
    typed = [f"cache={cache}", *(override for override in overrides if override != "-m")]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *multirun, *typed],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
        env={**os.environ, "WANDB_MODE": "offline", "COLUMNS": "80", "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_a_sweep_on_the_screen(tmp_path: Path, cache: Path, xformer: Command) -> None:
    directory = tmp_path / "sweep"
    code, shown, told = xformer(
        "train", "-m", *FAST, "attention=full,linformer", "position=learned,rotary",
        f"cache={cache}", f"hydra.sweep.dir={directory}", columns=80,
    )  # fmt: skip
    assert code == 1  # linformer refuses rotary
    assert re.findall(r"cell (\d) of 4", shown) == ["1", "2", "3"]
    assert len(re.findall(r"cell [23] of 4, \d+ \w+ left", shown)) == 2
    assert shown.count("Results") == 0
    line = r"^result +attention=\w+  position=\w+  val/accuracy [\d.]+  test/accuracy [\d.]+  \d+ s$"
    assert len(re.findall(line, shown, re.MULTILINE)) == 3
    assert "Sweep: 4 cells, 3 finished, 1 failed" in shown
    assert shown.rstrip().splitlines()[-1] == f"next       xformer compare {directory}"
    assert "linformer does not go with" in " ".join(told.split())
    assert shown.count("task=classification") == 1  # what is the same in all cells is said once
    assert max(map(len, shown.splitlines())) <= 80 or str(directory) in shown


SECRET, PLANTED, LITERAL = "tok-998877aabbcc", "plant-5d41402abc4b", "zzz111222333"


def leaks(directory: Path, *texts: str) -> list[str]:
    written = {str(file): file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    shown = {text: text.encode() for text in texts}
    secrets = [value.encode() for value in (SECRET, PLANTED, LITERAL)]
    return [name for name, content in (written | shown).items() if any(value in content for value in secrets)]


def test_no_secret_is_left_by_any_road(tmp_path: Path, cache: Path) -> None:
    done = train(
        tmp_path, cache, "-m", *[override for override in FAST if override != "logger=csv"], "logger=wandb",
        "cache=scratch/${oc.env:PLANTED}-${oc.env:HF_TOKEN}", "seed=0,1", "hydra.sweep.dir=sweep",
        "logger.wandb.group=of-${oc.env:HF_TOKEN}", "hydra.sweep.subdir='${cell:${hydra.job.override_dirname}}'",
        HF_TOKEN=SECRET, PLANTED=PLANTED,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = [file.parent for file in (tmp_path / "sweep").rglob("summary.json")]
    assert len(cells) == 2
    for cell in cells:
        # As Hydra hands what was typed to the cells of a sweep.
        typed = [override.replace("\\", "") for override in read_summary(cell).overrides]
        assert "cache=scratch/${oc.env:PLANTED}-${oc.env:HF_TOKEN}" in typed
        assert len([*cell.rglob("*.wandb")]) == 1
    assert not leaks(tmp_path / "sweep", done.stdout, done.stderr, *map(str, cells))


@pytest.mark.parametrize(
    "overrides",
    [
        [f"+logger.wandb.api_key={LITERAL}", "logger=wandb"],
        ["task=language_modeling", "data.source.files=/no/such/${oc.env:HF_TOKEN}.txt"],
        pytest.param([f"+logger.wandb.api_key={LITERAL}", "logger=wandb", "seed=0,1", "-m"], marks=pytest.mark.slow),
        pytest.param([f"data.password={LITERAL}"], marks=pytest.mark.slow),
        pytest.param(["optimizer.lr=${oc.env:HF_TOKEN}", f"+monitor.token={LITERAL}"], marks=pytest.mark.slow),
    ],
    ids=["a key", "a path", "a key in a sweep", "a key that is none", "a number"],
)
@pytest.mark.parametrize("full_error", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_what_is_refused_leaves_no_secret(overrides: list[str], full_error: str, tmp_path: Path, cache: Path) -> None:
    places = ["hydra.run.dir=run", "hydra.sweep.dir=sweep"]
    done = train(tmp_path, cache, *FAST, *overrides, *places, HF_TOKEN=SECRET, HYDRA_FULL_ERROR=full_error)
    assert done.returncode == 1
    assert done.stderr
    assert not leaks(tmp_path, done.stdout, done.stderr)

"""Wheels of xformer and of a made plugin, installed side by side, do everything in a directory that is empty."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "my_mixers"
SMALL = [
    "debug=fast", "size=tiny", "logger=csv", "trainer.accelerator=cpu", "callbacks.progress=null",
    "data.generation.train_size=64", "data.generation.val_size=32", "data.generation.test_size=32",
]  # fmt: skip
MIXER = f"{NAME}_conv"
"""The plugin's token mixer, which is causal alone."""
WRITES = [*SMALL[:5], "task=language_modeling", "data.block=32"]
STUDY = f"""# @package _global_
defaults:
  - override /task: language_modeling
  - override /logger: csv
  - override /size: tiny
study:
  question: Does a short convolution do what attention does?
  baseline: attention=full
  expected: a minute
data:
  block: 32
trainer:
  accelerator: cpu
  max_steps: 5
  val_check_interval: 5
  limit_val_batches: 2
  limit_test_batches: 2
skip_finished: true
hydra:
  mode: MULTIRUN
  sweep:
    dir: outputs/studies/first_study
    subdir: ${{cell:${{hydra.job.override_dirname}}}}
  sweeper:
    params:
      attention: full,{MIXER}
      seed: 0,1
"""

Call = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def checked(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with both wheels; what they depend on is that of the environment of the tests."""
    place = tmp_path_factory.mktemp("wheels")
    source, wheels, made = place / "source", place / "wheels", place / "made"
    source.mkdir()
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("xformer", "conf", "experiments", "tests/contracts", "tests/architecture"):  # linked to one another
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    checked([*build, str(source)])
    checked([sys.executable, "-m", "venv", "--without-pip", str(place / "env")])
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = place / "env" / "lib" / version / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(place / "env"), "install", "--no-deps"]
    install += ["--no-index", "--force-reinstall"]
    checked([*install, *map(str, wheels.glob("xformer*.whl"))])
    checked([str(place / "env" / "bin" / "xformer"), "new-plugin", NAME, "--directory", str(made)], cwd=place)
    study = made / NAME / "conf" / "experiment" / "first_study.yaml"
    study.parent.mkdir()
    study.write_text(STUDY)
    checked([*build, str(made)])
    checked([*install, *map(str, wheels.glob(f"{NAME}*.whl"))])
    return place


@pytest.fixture
def xformer(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The console script, in a directory that was empty when the module began."""
    empty = environment / "empty"
    empty.mkdir(exist_ok=True)

    def call(*words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("XFORMER", "PYTHONPATH"))}
        own = {"XDG_CACHE_HOME": str(environment / "cache"), "XDG_CONFIG_HOME": str(environment / "settings")}
        done = subprocess.run(
            [str(environment / "env" / "bin" / "xformer"), *words],
            cwd=empty, capture_output=True, text=True, timeout=500,
            env={**kept, **own, "OMP_NUM_THREADS": "1", "COLUMNS": "300", **variables},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def trained(xformer: Call, environment: Path) -> Path:
    """A run of the plugin's attention, trained once."""
    run = environment / "empty" / "run"
    if not run.exists():
        xformer("train", *SMALL, f"attention={NAME}", "hydra.run.dir=run")
    return run


def test_what_the_plugin_brings_is_listed(xformer: Call) -> None:
    assert NAME in xformer("train", "--help").stdout
    assert f"`{NAME}`" in xformer("compatibility").stdout
    assert "xformer train attention=linformer" in xformer("train", "--help").stdout


def test_it_trains_and_says_where_it_came_from(xformer: Call, environment: Path) -> None:
    shown = xformer("train", *SMALL, f"attention={NAME}", "hydra.run.dir=first").stdout
    assert "xformer train -m" in shown
    assert "train.py" not in shown
    summary = json.loads((environment / "empty" / "first" / "summary.json").read_text())
    assert summary["plugins"] == {NAME: {"version": "0.1.0", "commit": None, "dirty": None}}
    assert (environment / "cache" / "xformer").is_dir()
    assert not (environment / "empty" / ".cache").exists()


def test_its_values_are_checked(xformer: Call) -> None:
    said = xformer("train", f"attention={NAME}", "attention.temperature=0", code=1).stderr
    assert "attention.temperature=0" in said
    assert "above 0" in said
    said = xformer("train", f"attention={NAME}", "attention.temperatures=1", code=1).stderr
    assert "did you mean attention.temperature?" in said


def test_a_trained_run_is_measured_and_looked_into(xformer: Call, trained: Path) -> None:
    assert "test/loss" in xformer("evaluate", str(trained)).stdout
    assert ".html" in xformer("attention", str(trained), "--input", "[MAX 1 2 [MIN 3 4]]").stdout


def test_its_mixer_is_refused_where_tokens_read_both_ways(xformer: Call) -> None:
    said = xformer("train", *SMALL, f"attention={MIXER}", "hydra.run.dir=refused", code=1).stderr
    assert f"attention={MIXER} does not go with architecture=encoder" in said
    assert "its convolution reads earlier tokens alone" in said
    layers = f"attention.layers=[full,{MIXER}]"
    said = xformer("train", *SMALL, "size.layers=2", "attention=hybrid", layers, code=1).stderr
    assert "its convolution reads earlier tokens alone" in said


@pytest.mark.parametrize("attention", [NAME, MIXER])
def test_it_decodes(xformer: Call, attention: str) -> None:
    xformer("train", *WRITES, f"attention={attention}", f"hydra.run.dir=writes_{attention}")
    assert xformer("generate", f"writes_{attention}", "--prompt", "The", "--max-new", "5").stdout.strip()


def test_both_are_layers_of_a_hybrid_with_a_short_name(xformer: Call) -> None:
    layers = f"attention.layers=[{MIXER},{{{NAME}: {{temperature: 3.0}}}}]"
    xformer("train", *WRITES, "size.layers=2", "attention=hybrid", layers, "hydra.run.dir=mixed/hybrid")
    xformer("train", *WRITES, "size.layers=2", "hydra.run.dir=mixed/full")
    assert f"hybrid({MIXER}+{NAME}(temperature=3.0))" in xformer("compare", "mixed").stdout


@pytest.mark.parametrize(("attention", "words"), [(NAME, SMALL), (MIXER, WRITES)])
def test_processes_of_a_sweep_know_it_and_its_runs_are_compared(
    xformer: Call, attention: str, words: list[str]
) -> None:
    sweep = ["hydra/launcher=local", f"hydra.sweep.dir=swept_{attention}", f"attention=full,{attention}", "seed=0,1"]
    assert "4 cells, 4 finished" in xformer("train", "-m", *words, *sweep).stdout
    assert attention in xformer("compare", f"swept_{attention}").stdout


def test_its_study_is_run_recorded_reproduced_and_handed_on(xformer: Call, environment: Path) -> None:
    said = xformer("reproduce", "first_study", code=1).stderr
    assert "run xformer train -m experiment=first_study, then xformer record first_study" in said
    xformer("train", "-m", "experiment=first_study")
    assert MIXER in xformer("compare", "first_study").stdout
    written = xformer("record", "first_study").stdout.splitlines()
    assert {"experiments/first_study/runs.csv", "experiments/first_study/README.md"} <= {*written}
    shared = (environment / "empty" / "experiments" / "first_study" / "shared.yml").read_text()
    assert f"{NAME}:" in shared
    shown = xformer("reproduce", "first_study", "--cells", f"attention={MIXER}").stdout
    assert "2 of 4 cells of experiments/first_study" in shown
    assert "identical in every metric" in shown
    assert shown.splitlines()[-1] == "2 pass"

    # Copied beside the study's file, the table goes with the next wheel, to whoever installs it.
    recorded = environment / "empty" / "experiments" / "first_study"
    made = environment / "made"
    shutil.copytree(recorded, made / NAME / "conf" / "experiment" / "first_study")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    checked([*build, "-w", str(environment / "next"), str(made)])
    shutil.rmtree(recorded)
    shutil.rmtree(environment / "empty" / "outputs")
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(environment / "env"), "install", "--no-deps"]
    checked([*install, "--no-index", "--force-reinstall", *map(str, (environment / "next").glob("*.whl"))])
    assert MIXER in xformer("compare", "first_study").stdout
    cell = ["--cells", f"attention={MIXER}", "--seeds", "1"]
    assert xformer("reproduce", "first_study", *cell).stdout.splitlines()[-1] == "1 pass"


def test_our_committed_studies_are_in_the_wheel(xformer: Call) -> None:
    assert "attention" in xformer("compare", "recall_pairs").stdout
    said = xformer("reproduce", "recall_pairs", "--seeds", "77", code=1).stderr
    assert "--seeds 77 matches no cell of recall_pairs" in said


def test_its_classes_are_audited(xformer: Call) -> None:
    words = ["--seeds", "1", "--longest", "0", "--require", "causal,padding-left,padding-right,step,rows"]
    shown = xformer("audit", f"{NAME}.conv.MyMixersConv", "width=3", *words).stdout
    assert "mask (a Mask of xformer)" in shown
    assert "| reach | 2 tokens before; nothing after" in shown
    words[-1] = "padding-left,padding-right,step,rows"
    assert "all before" in xformer("audit", f"{NAME}.attention.MyMixers", "causal=true", *words).stdout


def test_it_is_benchmarked(xformer: Call) -> None:
    short = ["rounds=1", "--quick"]
    variants = f"variants=[{{attention: {NAME}}}]"
    assert NAME in xformer("benchmark", "attention", *short, "lengths=[64]", variants).stdout
    model = ["model=[task=language_modeling,size=tiny]", "contexts=[16]", "batches=[1]", "new_tokens=2"]
    variants = f"variants=[{{attention: full}},{{attention: {MIXER}}}]"
    assert MIXER in xformer("benchmark", "decoding", *short, *model, variants).stdout


def test_a_run_opens_only_where_its_plugin_is_installed_and_named(
    xformer: Call, trained: Path, environment: Path
) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = environment / "env" / "lib" / version / "site-packages"
    record, away = packages / f"{NAME}-0.1.0.dist-info", environment / "away"
    away.mkdir()
    shutil.move(record, away / record.name)
    try:
        said = xformer("evaluate", str(trained), code=1).stderr
        assert f"needs the plugin {NAME}, which is not named: add plugins=[{NAME}]" in said
        assert "test/loss" in xformer("evaluate", str(trained), f"plugins=[{NAME}]").stdout
        assert "test/loss" in xformer("evaluate", str(trained), XFORMER_PLUGINS=NAME).stdout
        assert f"attention={NAME} is not an option" in xformer("train", f"attention={NAME}", code=1).stderr
        shutil.move(packages / NAME, away / NAME)
        said = xformer("evaluate", str(trained), code=1).stderr
        assert f"needs the plugin {NAME}, which is not installed here." in said
        said = xformer("train", f"resume={trained}", code=1).stderr
        assert f"needs the plugin {NAME}, which is not installed here." in said
        assert NAME in xformer("compare", str(trained)).stdout
    finally:
        for folder in away.iterdir():
            shutil.move(folder, packages / folder.name)
        away.rmdir()


def test_the_contracts_run_on_it(xformer: Call) -> None:
    assert " passed" in xformer("test", NAME, "-k", f"{NAME} and future").stdout


def test_the_plugins_own_tests_pass(environment: Path) -> None:
    python = environment / "env" / "bin" / "python"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XFORMER", "PYTHONPATH"))}
    checked([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=environment / "made", env=kept)

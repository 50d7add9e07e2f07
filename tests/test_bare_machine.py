"""A machine with less installed than README asks for: what cannot be tested there is skipped, and a run runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL, SMALL_LISTOPS
from xformer.runs.summary import read_summary

ROOT = Path(__file__).parents[1]
ABSENT = ("wandb", "sacrebleu", "hypothesis", "tensorboard", "submitit", "optuna", "hydra_plugins", "joblib_launcher")
HIDDEN = f"""
import sys
from importlib.machinery import PathFinder

find, distributions = PathFinder.find_spec, PathFinder.find_distributions

def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT} else find(name, path, target)

def find_distributions(cls, context):
    return [] if context.name in {ABSENT} else distributions(context)

PathFinder.find_spec, PathFinder.find_distributions = map(classmethod, (find_spec, find_distributions))
"""


def without(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """What a process says and returns in which these packages cannot be imported."""
    command = [sys.executable, "-c", HIDDEN + code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_every_test_can_be_collected_or_is_skipped_with_its_reason() -> None:
    options = ["-n", "0", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-m", "slow or not slow"]
    found = without("import pytest; sys.exit(pytest.main(sys.argv[1:]))", "--collect-only", "-qq", "-rs", *options)
    assert found.returncode == 0, found.stdout[-3000:]
    for name in ("wandb", "sacrebleu", "hypothesis"):
        assert f"needs {name}, which is not installed" in found.stdout
    with_a_device = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest." + "mark.gpu" in path.read_text()]
    for path in with_a_device:
        assert f"{path.relative_to(ROOT)}: " in found.stdout, "what a device is for can be tested there"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logger", "code", "words"),
    [("csv", 0, ""), ("wandb", 1, "error: logger=wandb needs the package wandb, .*; use logger=csv .*\n")],
)
def test_a_run(logger: str, code: int, words: str, cache: Path, tmp_path: Path) -> None:
    small = [override for override in SMALL if not override.startswith("logger=")]
    typed = [*small, *SMALL_LISTOPS, f"logger={logger}", f"cache={cache}", f"hydra.run.dir={tmp_path}"]
    run = "import runpy; runpy.run_path('train.py', run_name='__main__')"
    found = without(run, *typed)
    assert found.returncode == code, found.stderr
    assert re.fullmatch(words, found.stderr), found.stderr
    assert read_summary(tmp_path).status == ("failed" if code else "finished")

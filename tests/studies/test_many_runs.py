"""What a comparison of many runs costs: each file is read once, and nothing heavy is loaded to read it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.studies.conftest import MakeRun
from xformer import cli

RUNS = 40


@pytest.fixture
def many(make_run: MakeRun, tmp_path: Path) -> Path:
    """Four attentions under ten seeds."""
    for seed in range(RUNS // 4):
        for shift, name in enumerate(("full", "local", "sparse", "performer")):
            make_run(0.5 + 0.01 * shift + 0.001 * seed, seed=seed, attention=name)
    return tmp_path / "sweep"


@pytest.mark.parametrize("command", [["compare"], ["report", "--figures", "figures"]])
def test_every_file_of_a_run_is_read_once(
    command: list[str], many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[Path] = Counter()
    own = Path.open

    def counting(path: Path, *words: Any, **options: Any) -> Any:
        opened[path.resolve()] += 1
        return own(path, *words, **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xformer", *command, str(many)])
    monkeypatch.setattr(Path, "open", counting)
    for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):
        monkeypatch.setenv(name, "")
    cli.main()
    of_runs = Counter({path: count for path, count in opened.items() if many in path.parents})
    assert set(of_runs.values()) == {1}
    needed = {"summary.json", "config.yaml"} | ({"metrics.csv"} if command[0] == "report" else set())
    assert Counter(path.name for path in of_runs) == dict.fromkeys(needed, RUNS)


@pytest.mark.parametrize("command", ["compare", "report"])
def test_neither_torch_nor_lightning_is_loaded(command: str, many: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from xformer.cli import main; main(); "
        "print('loaded', [name for name in ('torch', 'lightning', 'wandb', 'datasets') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, command, str(many)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.splitlines()[-1] == "loaded []"

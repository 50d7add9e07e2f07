"""Follows CONTRIBUTING's steps with its own examples, and nothing else, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TREES = ["xformer", "conf", "experiments", "tests"]
FILES = ["train.py", "pyproject.toml"]
ROW = "ATTENTION_ROWS: dict[str, dict[str, Any]] = {\n"
CHECKS = {"ruff check", "ruff format --check", "codespell", "lint-imports", "mypy"}


EXAMPLES = {"aft_simple": "Add a variant in five steps", "min_gru": "Add a token mixer"}
"""The option that a chapter adds."""


def step(number: int, example: str) -> tuple[str, str]:
    """The heading of a step and the code block below it."""
    chapter = TEXT.partition(f"\n## {EXAMPLES[example]}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^### {number}\. (.*?)\n.*?^```\w+\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    assert found, f"CONTRIBUTING has no step {number} with a code block for {example}"
    return found[1], found[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the examples added as steps 1 to 3 say."""
    root = tmp_path_factory.mktemp("project")
    for tree in TREES:
        shutil.copytree(ROOT / tree, root / tree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, root / file)
    for example in EXAMPLES:
        for number in (1, 2):
            heading, block = step(number, example)
            path = root / heading.split("`")[1]
            assert not path.exists(), f"{path.name} is no longer new: CONTRIBUTING needs another example"
            path.write_text(block)
        heading, block = step(3, example)
        rows = root / heading.split("`")[3]
        before = rows.read_text()
        assert before.count(ROW) == 1
        rows.write_text(before.replace(ROW, ROW + block))
    return root


def call(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = command.split()
    assert words[0] == "python"
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=project, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_steps_are_enough_for_the_contracts(project: Path, example: str) -> None:
    contracts, _ = step(4, example)[1].splitlines()
    result = call(project, f"{contracts} -q")
    assert result.returncode == 0, result.stdout[-4000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) > 60
    skipped = re.search(r"(\d+) skipped", result.stdout)
    assert int(skipped[1] if skipped else 0) < int(passed[1]) / 4


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_steps_are_enough_to_train(project: Path, example: str) -> None:
    _, training = step(4, example)[1].splitlines()
    small = "size=tiny trainer.accelerator=cpu"
    if "task=" not in training:
        small += "".join(f" data.generation.{split}_size=64" for split in ("train", "val", "test"))
    result = call(project, f"{training} {small} hydra.run.dir={project / example}")
    assert result.returncode == 0, result.stderr
    assert OmegaConf.load(project / example / "summary.json").choices.attention == example


@pytest.mark.slow
def test_a_mixer_is_refused_in_an_encoder_and_takes_its_place_in_a_hybrid(project: Path) -> None:
    hybrid = "attention=hybrid size.layers=2 debug=fast size=tiny trainer.accelerator=cpu logger=csv"
    result = call(project, f"python train.py attention=min_gru debug=fast hydra.run.dir={project / 'refused'}")
    assert result.returncode != 0
    assert "attention=min_gru does not go with architecture=encoder: reading later tokens" in result.stderr
    layers = "task=language_modeling position=none attention.layers=[min_gru,aft_simple]"
    result = call(project, f"python train.py {hybrid} {layers} hydra.run.dir={project / 'hybrid'}")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_notebook_has_it_as_a_plain_module(project: Path, tmp_path: Path) -> None:
    """Its causal form is its decoding step by step, with the values of its file, or of the call."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, xformer\n"
        "attend = xformer.AFTSimple(d_model=16, num_heads=4, causal=True, temperature=2.0)\n"
        "assert set(attend.mix.temperature.flatten().tolist()) == {2.0}\n"
        "assert 1.0 in xformer.AFTSimple(16, 4).mix.temperature\n"
        "x = torch.randn(2, 150, 16)\n"
        "state = attend.mix.init_state(150)\n"
        "steps = torch.cat([attend(x[:, i : i + 1], state=state) for i in range(150)], dim=1)\n"
        "torch.testing.assert_close(steps, attend(x))\n"
        "mix = xformer.MinGRU(d_model=16, num_heads=4)\n"
        "state = mix.init_state(150)\n"
        "steps = torch.cat([mix(part, state=state) for part in x.split([70, *[1] * 80], dim=1)], dim=1)\n"
        "torch.testing.assert_close(steps, mix(x))\n"
    )
    result = call(project, f"python {script}")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_variant_without_its_row_is_noticed(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(project, copy, symlinks=True)
    shutil.copy(ROOT / "tests/contracts/variants.py", copy / "tests/contracts/variants.py")
    result = call(copy, "python -m pytest -vv tests/contracts/test_attention.py -k every_yaml_has_a_row")
    assert result.returncode != 0, result.stdout
    assert "aft_simple" in result.stdout


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff comes with the extra `dev`")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_is_in_our_style(project: Path, example: str) -> None:
    file = project / step(1, example)[0].split("`")[1]
    for command in ("check", "format --check"):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command.split(), str(file)], cwd=project, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout


def test_the_gate_the_hooks_and_the_text_run_the_same_checks() -> None:
    hooks = OmegaConf.load(ROOT / ".pre-commit-config.yaml").repos[0].hooks
    assert {hook.entry for hook in hooks} == CHECKS
    gate = re.findall(r"^step (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(gate) >= CHECKS
    assert all(f"`{check}`" in TEXT for check in CHECKS)

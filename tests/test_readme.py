"""Everything that README and the pages of docs/ say one can type is run, and what they show is what is there."""

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from packaging.requirements import Requirement

import xformer
from tests.conftest import SMALL, SMALL_LISTOPS, ComposeJob
from xformer import cli
from xformer.benchmark.settings import READ, settings
from xformer.config import compatibility
from xformer.config.groups import groups
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.errors import IncompatibleError
from xformer.runs.summary import MonitoredMetric, Summary, read_summary
from xformer.training.resume import expand_resume
from xformer.training.run import run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
LONGEST_README = 120
PAGES = {file: file.read_text() for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETUP = re.compile(
    r"python3 -m venv (?P<venv>\S+) && (?P=venv)/bin/pip install -c (?P<constraints>\S+) "
    r"-e '?\.(?:\[(?P<extras>[\w,]+)\])?'? && (?P=venv)/bin/python (?P<then>\S.*)"
)


def commands() -> list[str]:
    """Every line of every block of shell, each once."""
    found = "".join(block for page in PAGES for block in blocks(page, "bash|console|sh"))
    lines = found.replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line.removeprefix("$ ") for line in lines if line.strip() and not line.startswith("#")))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """A page of docs/."""
    return PAGES[ROOT / "docs" / f"{name}.md"]


def is_setup(command: str) -> bool:
    return "venv" in command or "pip " in command


@dataclass(frozen=True)
class Command:
    """One line of shell, taken apart."""

    environment: dict[str, str]
    program: str
    words: list[str]

    @classmethod
    def of(cls, line: str) -> "Command":
        words = shlex.split(line)
        environment = dict(
            word.split("=", 1) for word in itertools.takewhile(lambda w: re.match(r"[A-Z_]+=", w), words)
        )
        words = words[len(environment) :]
        size = 2 if words[:2] == ["python", "train.py"] or words[0] in {"xformer", "sbatch"} else 1
        return cls(environment, " ".join(words[:size]), words[size:])

    @property
    def overrides(self) -> list[str]:
        return [word for word in self.words if not word.startswith("-")]

    def cells(self) -> list[list[str]]:
        """The overrides of every run: one, or with -m the product of the values."""
        if "-m" not in self.words:
            return [self.overrides]
        return [list(cell) for cell in itertools.product(*(_values(override) for override in self.overrides))]


def _values(text: str) -> list[str]:
    override = OverridesParser.create().parse_override(text)
    value, key = override.value(), override.get_key_element()
    if isinstance(value, Glob):
        return [f"{key}={option}" for option in value.filter(groups()[key])]
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}"]
    return [f"{key}={each}" for each in override.sweep_string_iterator()] if override.is_sweep_override() else [text]


LINES = [line for line in commands() if not is_setup(line)]
TRAIN = [line for line in LINES if Command.of(line).program == "python train.py"]
LAUNCH = [line for line in LINES if "launch/" in Command.of(line).program]
SLOW = [pytest.mark.slow]
COMPILED = [
    *SLOW,
    pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile calls a C++ compiler"),
]
TINY_BENCHMARK = [
    "rounds=1",
    "seconds=0",
    "lengths=[64]",
    "pairs=[{attention: local, window: 4, length: 64, against: torch fused}]",
    "whole=[task=masked_language_modeling,size=tiny]",
    "models=[{attention: full, length: 16}]",
    "tokens=16",
    "vocabulary=50",
    "model=[task=language_modeling,data.block=16,data.loader.batch_size=8,size=tiny]",
    "contexts=[16]",
    "batches=[1]",
    "new_tokens=2",
]
XFORMER = [line for line in LINES if Command.of(line).program.startswith("xformer ")]
AWAY = [line for line in XFORMER if "--wandb" in line or line.split()[1] in {"sync", "record", "reproduce"}]
"""They ask W&B's service, or train for hours, or need such runs: here they are understood, and tests/studies runs them
against a stand-in of the service and small studies."""
OF_A_PLUGIN = [line for line in XFORMER if "my_variants" in line and not line.startswith("xformer new-plugin")]
"""They need a package that is made and installed first: tests/test_wheel.py does that and runs such commands."""
PYTHON = [file for file in PAGES if blocks(file, "python")]


def fast(overrides: list[str]) -> list[str]:
    """The same choices with everything small."""
    typed = {override.partition("=")[0] for override in overrides}
    small = [override for override in SMALL if override.partition("=")[0] not in typed]
    if any(key.startswith("logger.wandb") for key in typed):
        small = ["logger=wandb" if override == "logger=csv" else override for override in small]
    small += ["trainer.max_steps=5", "trainer.val_check_interval=5"]
    data = next((o.partition("=")[2] for o in overrides if o.startswith("data=")), None)
    generated = data in {"listops", "listops_lra"} or (data is None and not typed & {"task", "experiment"})
    return [*overrides, *small, *(SMALL_LISTOPS if generated else [])]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds the files and the dataset that README names."""
    from datasets import Dataset, DatasetDict
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "CONTRIBUTING.md").read_text() * 5
    Path("tinyshakespeare.txt").write_text(text)
    Path("prompts.txt").write_text("The first\nA second\n")
    Path("books").mkdir()
    Path("books/one.txt").write_text(text)
    Path("sst2").mkdir()
    for name in ("train", "dev", "test"):
        Path(f"sst2/{name}.tsv").write_text("a fine film\t1\na dull one\t0\n" * 40)
    for number in range(80):
        folder = Path("pictures") / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 0, 9)).save(folder / f"{number}.png")
    part = Dataset.from_dict({"text": text.splitlines()})
    DatasetDict(train=part, validation=part, test=part).save_to_disk("Salesforce/wikitext")
    lines = [line[:60] for line in text.splitlines() if line][:300]
    pairs = Dataset.from_dict({"de": lines, "en": lines})
    DatasetDict(train=pairs, validation=pairs, test=pairs).save_to_disk("bentrevett/multi30k")
    for name in ("train.de", "train.en"):
        Path(name).write_text("\n".join(lines))
    return tmp_path


def test_there_are_exactly_two_setup_commands_and_each_is_one_sufficient_line() -> None:
    setup = [line for line in commands() if is_setup(line)]
    found = [SETUP.fullmatch(line) for line in setup]
    assert len(found) == 2, setup
    main, tests = found
    assert main, setup[0]
    assert tests, setup[1]
    assert main["then"] == "train.py"
    assert tests["then"] == "-m pytest"
    for match in (main, tests):
        assert (ROOT / match["constraints"]).is_file()
        assert set((match["extras"] or "").split(",")) - {""} <= set(PROJECT["optional-dependencies"])
    assert (ROOT / "train.py").is_file()
    assert "test" in tests["extras"]


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {_plain(name): version for name, _, version in (line.partition("==") for line in lines) if version}
    assert len(pins) == len(lines)
    extras = PROJECT["optional-dependencies"].values()
    wanted = [Requirement(text) for text in itertools.chain(PROJECT["dependencies"], *extras)]
    for requirement in wanted:
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pins[_plain(requirement.name)]), requirement


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    assert TRAIN
    scripts = {script.name for script in entry_points(group="console_scripts")}
    for line in set(LINES) - {*TRAIN, *LAUNCH, *XFORMER}:
        program = Command.of(line).program
        assert program in {"tensorboard", "wandb"}, f"no test runs: {line}"
        assert program in scripts


@pytest.mark.parametrize("line", [*TRAIN, *LAUNCH])
def test_every_cell_of_a_command_can_be_run_as_typed(line: str, compose_job: ComposeJob) -> None:
    command, refused = Command.of(line), 0
    cells = [cell for cell in command.cells() if not cell[:1] or not cell[0].startswith("resume=")]
    for cell in cells:
        config, choices = (job := compose_job(*cell)).config, job.choices
        validate(config)
        Plan.of(config)
        try:
            compatibility.check_compatibility(config, choices)
        except IncompatibleError:
            refused += 1
    allowed = range(1, len(cells)) if cells and "on_incompatible=skip" in cells[0] else range(1)
    assert refused in allowed, f"{refused} of {len(cells)} cells are refused"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=COMPILED if "compile=true" in line else SLOW if "trainer=ddp" in line else [])
        for line in TRAIN
    ],
)
def test_a_command_runs(line: str, compose_job: ComposeJob, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command.of(line)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    cell = command.cells()[0]
    directory = files / "run"
    for override in cell:
        if override.startswith("init_from="):
            _train(override.partition("=")[2], compose_job)
    if {"trainer=ddp", "compile=true"} & {*cell}:  # no process group, no compiling of shape checks in this process
        _subprocess([*fast(cell), f"hydra.run.dir={directory}"])
    else:
        if cell and cell[0].startswith("resume="):
            directory = Path(cell[0].partition("=")[2])
            _train(str(directory), compose_job)
            longer = ["trainer.max_steps=10"] if cell[1:] else []
            run(
                compose_job(
                    *(o for o in expand_resume(cell) if not o.startswith("hydra.")), *longer, directory=directory
                )
            )
        else:
            run(compose_job(*fast(cell), directory=directory))
    assert read_summary(directory).status == "finished"


def _train(directory: str, compose_job: ComposeJob) -> None:
    """A run that another command of README leaves."""
    train = next(Command.of(other) for other in TRAIN if other.endswith(f"hydra.run.dir={directory}"))
    run(compose_job(*fast(train.cells()[0]), directory=Path(directory)))


def _subprocess(overrides: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / "train.py"), *overrides]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=SLOW if line.startswith("xformer benchmark") else [])
        for line in XFORMER
        if line not in {*AWAY, *OF_A_PLUGIN}
    ],
)
def test_an_xformer_command_runs(
    line: str,
    files: Path,
    compose_job: ComposeJob,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for directory in re.findall(r"outputs/\S+", line):
        _train(directory, compose_job)
        capsys.readouterr()
    monkeypatch.setenv("XFORMER_CACHE", str(cache))
    words = shlex.split(line)
    read = READ[words[2]] if words[1] == "benchmark" else ()
    tiny = [override for override in TINY_BENCHMARK if override.partition("=")[0] in read]
    monkeypatch.setattr(sys, "argv", [*words, *tiny])
    cli.main()
    assert capsys.readouterr().out


class _UnderstoodError(Exception):
    """The command's arguments were read; what it would do with them is left out."""


@pytest.mark.parametrize("line", AWAY)
def test_a_command_that_needs_a_service_or_hours_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parse_args", "parse_intermixed_args"):
        read = getattr(argparse.ArgumentParser, name)

        def understood(self: argparse.ArgumentParser, read: Callable[..., object] = read) -> object:
            raise _UnderstoodError(read(self))

        monkeypatch.setattr(argparse.ArgumentParser, name, understood)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(_UnderstoodError):
        cli.main()


def test_the_cells_that_are_to_be_reproduced_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is judged as if it had given the committed result; nothing is trained."""
    monkeypatch.setattr("xformer.studies.repeat.repeat_cell", lambda run, where, overrides: (run, False))
    for line in [line for line in AWAY if line.startswith("xformer reproduce") and "--wandb" not in line]:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        cli.main()
        assert "1 pass" in capsys.readouterr().out


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: file.name)
def test_the_python_examples_of_a_page_run_from_top_to_bottom(
    file: Path, files: Path, compose_job: ComposeJob, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "\n".join(blocks(file, "python"))
    for directory in re.findall(r'"(outputs/\w+)"', code):
        _train(directory, compose_job)
    monkeypatch.setenv("XFORMER_CACHE", str(cache))
    exec(compile(code, str(file), "exec"), {})


@pytest.mark.parametrize("line", LAUNCH)
def test_a_launch_script_can_be_executed(line: str) -> None:
    script = ROOT / Command.of(line).program.split()[-1]
    assert os.access(script, os.X_OK)


def test_the_result_is_that_of_the_study() -> None:
    table = xformer.compare("extrapolation").set_index("position")
    shown = re.search(
        r"alt=\"Test loss at lengths .*: ALiBi stays at (.*), T5 rises to (.*), sinusoidal to (.*), rotary to (.*)\"",
        TEXT,
    )
    assert shown
    expected = [f"{table['mean'][position]:.2f}" for position in ("alibi", "t5", "sinusoidal", "rotary")]
    assert [*shown.groups()] == expected
    said = re.search(r"at (\d+), ALiBi is better than sinusoidal\s\(p = (.*?)\) and rotary worse\s\((.*?)\)", TEXT)
    assert said
    assert set(table["metric"]) == {f"test/loss@{said[1]}"}
    assert [*said.groups()[1:]] == [f"{table['p_holm'][position]:.3f}" for position in ("alibi", "rotary")]
    assert [table["verdict"][position] for position in ("alibi", "rotary")] == ["better", "worse"]


def test_the_names_of_all_variants_are_given() -> None:
    for group in ("attention", "position"):
        assert f"- {group.capitalize()}: {', '.join(groups()[group])}." in TEXT
    for group in groups():
        assert f"`{group}`" in page("configuration")
    for option in groups()["data"]:
        assert f"| `{option}` |" in page("data")


def test_readme_is_short_and_every_page_can_be_reached_from_it_and_from_the_index() -> None:
    assert len(TEXT.splitlines()) <= LONGEST_README
    pages = [file.stem for file in PAGES if file.parent == ROOT / "docs" and file.stem != "index"]
    for name in pages:
        assert f"({name}.md)" in page("index")
        assert re.search(rf"^{name}$", page("index"), re.MULTILINE), "it is in no toctree"
        assert f"(docs/{name}.md)" in TEXT or name in {"variants", "contributing"}


def test_the_fields_of_the_summary_are_given() -> None:
    row = next(line for line in page("running").splitlines() if line.startswith("| `summary.json`"))
    assert set(re.findall(r"`(\w+)`", row)) == {field.name for field in fields(Summary)}
    assert f"`monitor` ({', '.join(field.name for field in fields(MonitoredMetric))})" in row


def test_the_shown_run_is_what_the_default_shows(compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"<!-- default-run -->\n```\w*\n(.*?)```\n<!-- /default-run -->", page("running"), re.DOTALL)
    assert shown
    small = [o for o in SMALL if o != "size=tiny"]
    run(compose_job(*small, *SMALL_LISTOPS, "trainer.enable_progress_bar=false"))
    real, claimed = capsys.readouterr().out, shown[1]
    alike = [[line.rstrip() for line in text.splitlines()[:4]] for text in (real, claimed)]
    assert alike[0] == alike[1]  # choices, parameters, FLOPs
    assert _labels(real) == _labels(claimed)


def _labels(text: str) -> list[str]:
    """What each line tells, without the figures; the line of progress is only there where it is wanted."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("step ")]
    return [line.split("│")[1].strip() if line.startswith("│") else line.split()[0] for line in lines if line[0] != " "]


def test_links_lead_somewhere() -> None:
    for file in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#]+)\)|<img src=\"([^\"]+)\"", file.read_text()):
            link = "".join(link)
            assert link.startswith("https://") or (file.parent / link).exists(), f"{file}: {link}"


GPU = PAGES[ROOT / "docs" / "performance.md"].partition("\n## GPU\n")[2].partition("\n## ")[0]


def test_the_table_of_a_gpu_has_a_command_for_every_row() -> None:
    """And no figure for what nothing has measured."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in GPU.splitlines() if line.startswith("| ")]
    heading, *rows = rows
    assert heading == ["what", "measured by", "goal", "figure"]
    assert len(rows) > 10
    last = ""
    for what, how, goal, figure in rows:
        command = last if how == "the same" else how.partition("`")[2].partition("`")[0]
        last = command
        program, *words = shlex.split(command)
        if program == "xformer":
            assert words[0] == "benchmark"
            settings(words[1], [word for word in words[2:] if not word.startswith("-")], gpu="--gpu" in words)
        else:
            assert os.access(ROOT / program, os.X_OK), what
        assert goal
        assert figure


def test_the_citation_is_valid() -> None:
    from omegaconf import OmegaConf

    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert (citation.version, citation.license) == (PROJECT["version"], PROJECT["license"])

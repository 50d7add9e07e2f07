"""Small configurations composed as train.py does, runs trained once, and the command line in this process."""

import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from tests import files_read_once as files_read_once
from tests.studies.conftest import make_run as make_run
from tests.studies.conftest import sweep as sweep
from xformer import cli
from xformer.config.groups import CONF
from xformer.core import devices
from xformer.runs.job import Job, choices
from xformer.training.run import run

torch.set_num_threads(1)  # the models are so small that threads only wait for one another
# A shell ignores Ctrl-C for what it starts in the background, and all that is started from there would.
signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = [
    "debug=fast",
    "size=tiny",
    "logger=csv",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
]
SMALL_LISTOPS = ["data.generation.train_size=200", "data.generation.val_size=64", "data.generation.test_size=64"]

ComposeJob = Callable[..., Job]


# What a machine may lack that runs only part of the tests (`.ci/gpu` says what that has).
OPTIONAL = (
    "einops", "hypothesis", "kornia", "linformer", "local_attention", "performer_pytorch", "sacrebleu", "tensorboard",
    "transformers", "wandb", "x_transformers", "zeus",
)  # fmt: skip
MISSING = re.compile(rf"ModuleNotFoundError: No module named '({'|'.join(OPTIONAL)})\b")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a module that imports what is not installed, instead of stopping all of the others."""
    report = yield
    missing = MISSING.search(str(report.longrepr)) if report.failed else None
    if missing:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: needs {missing[1]}, which is not installed")
    return report


def pytest_collection_finish() -> None:
    """Spare every later collection of garbage the million objects that are there by now and stay."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") and not devices.is_available():
        pytest.skip("needs a CUDA device")


_SET_BY_COMMANDS = (
    "HYDRA_FULL_ERROR",
    "XFORMER_WRAPPED",
    "XFORMER_PROGRAM",
    "XFORMER_PLUGINS",
    "XFORMER_TYPED_PLUGINS",
)
"""Variables that a command which ran in this process leaves behind."""


# Without a device, torch.manual_seed would record the call stack for each kind of device that is not there.
_SET_SEED = torch.manual_seed if devices.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    _SET_SEED(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)  # which every command switches on
    for variable in _SET_BY_COMMANDS:
        os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of generated data for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def compose_job(tmp_path: Path, cache: Path) -> Iterator[ComposeJob]:
    """A job as the command line would make it, into `tmp_path/run` unless another directory is given."""

    def make(*overrides: str, directory: Path | None = None, sweep: bool = False) -> Job:
        where = directory or tmp_path / "run"
        where.mkdir(parents=True, exist_ok=True)
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(
                "train",
                overrides=[*overrides, f"cache={cache}", f"hydra.runtime.output_dir={where}"],
                return_hydra_config=True,
            )
        HydraConfig.instance().set_config(config)
        chosen = choices(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.set_struct(config, True)
        job = Job(config, where, chosen, list(overrides), sweep)
        job.apply_study_settings()
        return job

    yield make
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


PIECES = ["tokenizer=bpe", "tokenizer.vocabulary_size=300"]
RUNS = {
    "prose": ["task=language_modeling", "tokenizer=byte", "data.block=32"],
    "pieces": [*PIECES, "task=language_modeling", "data.block=16", "position=t5"],
    "reverse": [
        "task=seq2seq",
        "data.generation.train_size=60",
        "data.generation.val_size=20",
        "data.generation.test_size=20",
    ],
    "listops": ["data.generation.train_size=64", "data.generation.val_size=32", "data.generation.test_size=32"],
}
WHOLE = ["trainer.limit_val_batches=null", "trainer.limit_test_batches=null"]
TEXT = "Every attention that a stack can have is a class, and every class has a file of its own. " * 60
Trained = Callable[[str], Path]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(kept: Path, compose_job: ComposeJob, capsys: pytest.CaptureFixture[str]) -> Trained:
    """The directory of one of the runs above."""

    def trained(name: str) -> Path:
        text = kept / "text.txt"
        text.write_text(TEXT)
        if not (kept / name).exists():
            files = [f"data.source.files={text}"] if "task=language_modeling" in RUNS[name] else []
            run(compose_job(*SMALL, *WHOLE, *RUNS[name], *files, directory=kept / name))
        capsys.readouterr()
        return kept / name

    return trained


@pytest.fixture
def xformer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Command:
    """(exit code, output, errors) of `xformer COMMAND ...`, on a screen as wide as `columns`."""

    def call(*words: object, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xformer", *map(str, words)])
        monkeypatch.setenv("XFORMER_CACHE", str(cache))
        monkeypatch.setenv("COLUMNS", str(columns))
        for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):  # set by the command for its own children
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call

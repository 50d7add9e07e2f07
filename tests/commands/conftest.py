"""Finished runs, trained once, and the command line in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMALL, ComposeJob
from xformer import cli
from xformer.training.run import run

PIECES = ["tokenizer=bpe", "tokenizer.vocabulary_size=300"]
RUNS = {
    "prose": ["task=language_modeling", "tokenizer=byte", "data.block=32"],
    "pieces": [*PIECES, "task=language_modeling", "data.block=16", "position=t5"],
    "reverse": ["task=seq2seq", "data.train_size=60", "data.val_size=20", "data.test_size=20"],
    "listops": ["data.train_size=64", "data.val_size=32", "data.test_size=32"],
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
            files = [f"data.files={text}"] if "task=language_modeling" in RUNS[name] else []
            run(compose_job(*SMALL, *WHOLE, *RUNS[name], *files, directory=kept / name))
        capsys.readouterr()
        return kept / name

    return trained


@pytest.fixture
def xformer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Command:
    """(exit code, output, errors) of `xformer COMMAND ...`."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xformer", *map(str, words)])
        monkeypatch.setenv("XFORMER_CACHE", str(cache))
        monkeypatch.setenv("COLUMNS", "200")
        for name in ("HYDRA_FULL_ERROR", "XFORMER_WRAPPED"):  # set by the command for its own children
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call

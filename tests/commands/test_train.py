"""`xformer train`: what is typed is run, in this process and in those that a strategy starts."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import SMALL, SMALL_LISTOPS, Command
from xformer.commands.new_plugin import write_plugin
from xformer.config.groups import option_file
from xformer.errors import Interrupted
from xformer.runs.job import Job
from xformer.runs.summary import read_summary
from xformer.training.run_record import _resume_hint

TYPED = [*SMALL, *SMALL_LISTOPS, "trainer.max_steps=2", "trainer.val_check_interval=2"]


def test_what_is_typed_is_run_where_it_says(xformer: Command, cache: Path, tmp_path: Path) -> None:
    code, shown, _ = xformer("train", *TYPED, f"cache={cache}", "attention=local", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0
    summary = read_summary(tmp_path / "run")
    assert summary.status == "finished"
    assert summary.choices["attention"] == "local"
    assert "Results" in shown


@pytest.mark.slow
@pytest.mark.parametrize("started", ["script", "module"])
def test_a_strategy_starts_its_other_processes_with_the_same_command(started: str, cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "xformer"
    script.parent.mkdir()
    script.write_text("import sys\nfrom xformer.cli import main\nsys.exit(main())\n")
    begun = ["-m", "xformer.cli"] if started == "module" else ["bin/xformer"]
    typed = [*TYPED, "trainer.strategy=ddp", "trainer.devices=2", f"cache={cache}"]
    done = subprocess.run(
        [sys.executable, *begun, "train", *typed, "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = read_summary(tmp_path / "run")
    assert summary.status == "finished"
    assert "2 x " in done.stdout


TINY = [
    "task=language_modeling", "size=tiny", "size.layers=2", "threads=1", "logger=csv", "trainer.max_steps=1",
    "trainer.accelerator=cpu", "callbacks.progress=null",
]  # fmt: skip
RECALL = [*(f"data.generation.{part}_size=8" for part in ("train", "val", "test")), "data.loader.batch_size=8"]


@pytest.fixture
def plugin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the template's package, under a name of the test's own; it is on the path and not named."""
    package = tmp_path / "made" / request.function.__name__.removeprefix("test_")
    write_plugin(package.name, package.parent)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    return package


def test_printed_commands_run_as_printed_with_a_plugin(
    plugin: Path, xformer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"plugins=[{plugin.name}]", "data=recall", f"attention={plugin.name}_conv", "hydra.run.dir=run"]
    code, shown, said = xformer("train", *TINY, *RECALL, *names)
    assert code == 0, said
    (line,) = (line for line in shown.splitlines() if line.startswith("next "))
    hint = _resume_hint(Interrupted(signal.SIGTERM), Job(OmegaConf.create(), Path("run"), {}, []))
    for printed in (line.partition(" ")[2], hint.partition("continue with: ")[2]):
        for variable in ("XFORMER_PLUGINS", "XFORMER_TYPED_PLUGINS"):  # as in another shell
            monkeypatch.delenv(variable)
        program, command, *words = shlex.split(printed)
        assert (program, command) == ("xformer", "train")
        one = [word for word in words if word not in ("-m", "seed=0,1,2")]
        code, shown, said = xformer(command, *one, "--cfg", "job")  # composed and not run: it takes seconds
        assert code == 0, said
        assert f"_target_: {plugin.name}.conv." in shown


def test_a_dataset_of_a_plugin_without_a_stable_name_is_a_sentence(plugin: Path, xformer: Command) -> None:
    (plugin / "data.py").write_text("from xformer.data.datasets.recall import Recall\nclass Mine(Recall): ...\n")
    option = option_file("data", "recall")
    assert option
    (plugin / "conf" / "data").mkdir()
    text = option.read_text().replace("xformer.data.datasets.recall.Recall", f"{plugin.name}.data.Mine")
    (plugin / "conf" / "data" / "mine.yaml").write_text(text)
    words = [f"plugins=[{plugin.name}]", "data=mine", "hydra.run.dir=run"]
    code, _, said = xformer("train", *TINY, *RECALL, *words)
    assert code == 1
    assert said.count("\n") == 1
    assert f"{plugin.name}.data.Mine defines no stable_name" in said
    assert 'add stable_name = "Mine" to the class' in said


def test_a_tokenizer_of_a_plugin_trains_and_generates(plugin: Path, xformer: Command) -> None:
    (plugin / "lower.py").write_text(
        "from xformer.tokenizers.character import Character\n"
        "class Lower(Character):\n"
        "    stable_name = 'Lower'\n"
        "    def learn(self, texts):\n"
        "        super().learn(text.lower() for text in texts)\n"
        "    def encode(self, text):\n"
        "        return super().encode(text.lower())\n"
    )
    (plugin / "conf" / "tokenizer").mkdir()
    (plugin / "conf" / "tokenizer" / "lower.yaml").write_text(f"_target_: {plugin.name}.lower.Lower\n")
    Path("text.txt").write_text("Every attention IS a class, and EVERY class has a file. " * 40)
    named = f"plugins=[{plugin.name}]"
    words = ["tokenizer=lower", "data.block=16", "data.source.files=text.txt", "hydra.run.dir=run"]
    code, _, said = xformer("train", named, *TINY, *words)
    assert code == 0, said
    code, shown, said = xformer("generate", named, "run", "--prompt", "EVERY", "--max-new", "4")
    assert code == 0, said
    assert shown.lower().startswith("every")
    assert read_summary(Path("run")).plugins.keys() == {plugin.name}

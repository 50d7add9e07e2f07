"""Where code lives is no part of what a run is: what was left before classes moved opens, and is what it was."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.testing import assert_close

from tests.conftest import ComposeJob
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.architecture.stack import Stack
from xformer.config.moved import new_overrides
from xformer.config.options import target_at
from xformer.config.plan import Plan
from xformer.config.validate import target
from xformer.data.datasets.text import Text
from xformer.errors import ConfigError, RunError
from xformer.inspection.probes.base import Probe
from xformer.runs.job import CONFIG_FILE
from xformer.runs.open_run import open_run
from xformer.runs.recorded_run import load_runs, read_run
from xformer.runs.summary import read_summary
from xformer.studies.committed_runs import read_table, write_table
from xformer.studies.comparison import compare
from xformer.studies.grouping import group_runs
from xformer.studies.study import EXPERIMENTS
from xformer.training.evaluate import evaluate
from xformer.training.run import run

ROOT = Path(__file__).parents[1]
BEFORE = Path(__file__).parent / "before"
"""Made at commit ff645dd, when classes told configurations apart: a run, the cache that it filled, and a table."""
RUN = [
    "task=language_modeling", "data.source.files=text.txt", "data.block=16", "data.loader.batch_size=8",
    "tokenizer=character",
    "size.d_model=8", "size.layers=1", "size.heads=2", "size.feed_forward=8", "attention=local", "position=rotary",
    "schedule=constant", "optimizer.lr=0.01", "trainer.val_check_interval=3", "trainer.accelerator=cpu", "logger=csv",
    "threads=1", "seed=3",
]  # fmt: skip


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run of before, in a working directory that has its text and its cache."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    return tmp_path / "before" / "run"


def results(directory: Path) -> dict[str, float | None]:
    metrics = read_summary(directory).metrics
    return {name: value for name, value in metrics.items() if name.startswith(("val/", "test/"))}


def moved(directory: Path, old: str, new: str) -> None:
    """A run as it was left by a version in which a class had another name."""
    file = directory / CONFIG_FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# What was left before


def test_a_run_of_before_opens_and_evaluates_to_what_it_said(old: Path) -> None:
    assert_close(evaluate(open_run(old)).metrics, results(old), rtol=1e-4, atol=0)


def test_a_run_of_before_is_one_group_with_the_same_run_of_now(old: Path, compose_job: ComposeJob) -> None:
    job = compose_job(*RUN, "trainer.max_steps=6", "callbacks=[default,attention_entropy,learning_rate]")
    run(job)
    found = load_runs([old, job.directory])
    assert len(group_runs(found)) == 1
    assert_close(results(job.directory), results(old), rtol=1e-4, atol=0)
    left_out = compare(found).left_out  # one seed of one configuration, run twice
    assert list(left_out) == [str(old)]


def test_a_run_of_before_goes_on(old: Path, compose_job: ComposeJob, tmp_path: Path) -> None:
    # With every class elsewhere, as it will be: what is resumed is known by its options.
    moved(old, "xformer.attention", "xformer.of_another_day")
    run(compose_job(*RUN, "trainer.max_steps=9", "resume=true", directory=old))
    run(compose_job(*RUN, "trainer.max_steps=9", directory=tmp_path / "whole"))
    assert_close(results(old), results(tmp_path / "whole"), rtol=1e-4, atol=0)
    assert read_summary(old).tokens_seen == read_summary(tmp_path / "whole").tokens_seen
    with pytest.raises(RunError, match=r"attention was local and is full"):
        run(compose_job(*RUN, "trainer.max_steps=12", "attention=full", "resume=true", directory=old))


def test_a_cache_of_before_is_read(old: Path, compose_job: ComposeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(sys.modules[Text.__module__], "pack", never)
    job = compose_job(*RUN)
    job.config.cache = str(old.parent / "cache")
    assert Plan.of(job.config).load_data().fingerprint == read_summary(old).data_fingerprint
    job.config.data.source.files = str(ROOT / "README.md")
    with pytest.raises(AssertionError, match="tokenised again"):
        Plan.of(job.config).load_data()


def test_a_table_of_before_is_the_one_that_is_committed_now(tmp_path: Path) -> None:
    then, now = read_table(BEFORE / "table"), read_table(EXPERIMENTS / "recall_pairs" / "other_seeds")
    assert [(r.settings, r.seed, r.summary.metrics) for r in then] == [
        (r.settings, r.seed, r.summary.metrics) for r in now
    ]
    assert all("one of the sequence's values" in run.summary.trivial_baselines for run in then)  # as `floors`
    assert "_target_" in (BEFORE / "table" / "shared.yml").read_text()
    write_table(tmp_path, then)
    assert [(r.settings, r.summary.metrics) for r in read_table(tmp_path)] == [
        (r.settings, r.summary.metrics) for r in now
    ]


def test_nothing_that_is_committed_names_a_class() -> None:
    files = [file for file in EXPERIMENTS.resolve().rglob("*") if file.suffix in {".csv", ".yml", ".yaml", ".md"}]
    assert len(files) > 40
    named = [str(file) for file in files if re.search(r"_target_|\b(xformer|lightning)\.\w+\.", file.read_text())]
    assert named == []


INITIAL = json.loads((BEFORE / "initial.json").read_text())
"""The first value of every parameter and buffer, by what was typed."""


@pytest.mark.parametrize("typed", INITIAL)
def test_a_seed_starts_from_the_weights_it_did_before(typed: str, old: Path, compose_job: ComposeJob) -> None:
    small = ["size=tiny", "size.d_model=8", "size.heads=2", "size.feed_forward=8", "size.layers=2", "seed=5"]
    plan = Plan.of(compose_job(*new_overrides(typed.split(), {}), *small).config)
    plan.load_data()
    state = plan.build_task().state_dict()
    assert list(state) == list(INITIAL[typed])
    first = {name: float(tensor.flatten()[0]) if tensor.numel() else None for name, tensor in state.items()}
    assert_close(
        {name: value for name, value in first.items() if value is not None},
        {name: value for name, value in INITIAL[typed].items() if value is not None},
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


# What is typed in place of an option's class


def test_a_target_that_was_typed_is_seen(compose_job: ComposeJob, tmp_path: Path) -> None:
    short = [*RUN[:1], *RUN[2:], "trainer.max_steps=1", "trainer.limit_test_batches=1", "trainer.limit_val_batches=1"]
    other = target_at("attention", {"attention": "full"})
    typed = [f"attention._target_={target_at('attention', {'attention': 'local'})}"]  # what is there anyway
    cells = {"plain": [], "same": typed, "other": [f"attention._target_={other}", "~attention.window"]}
    for name, words in cells.items():
        run(compose_job(*short, *words, directory=tmp_path / "runs" / name))
    groups = group_runs(load_runs([tmp_path / "runs"]))
    assert [[Path(run.name).name for run in group.runs] for group in groups] == [["same", "plain"], ["other"]]
    assert [group.get("attention") for group in groups] == ["local", other]
    moved(tmp_path / "runs" / "plain", "xformer.attention", "xformer.of_another_day")
    assert len(group_runs(load_runs([tmp_path / "runs"]))) == 2
    assert open_run(tmp_path / "runs" / "other").task.model.tower.mixers[0][0].variant == "Full"


@pytest.mark.parametrize("typed", [[], ["+callbacks.mine._target_=xformer.probes.mine.Mine"]])
def test_what_no_option_has_a_place_for_is_told_apart_in_a_run_of_before(typed: list[str], old: Path) -> None:
    other = shutil.copytree(old, old.parent / "other")
    for directory, name in ((old, "Mine"), (other, "Yours")):
        config = yaml.safe_load((directory / CONFIG_FILE).read_text())
        config["callbacks"]["mine"] = {"_target_": f"xformer.probes.mine.{name}"}
        (directory / CONFIG_FILE).write_text(yaml.safe_dump(config))
        summary = json.loads((directory / "summary.json").read_text())
        summary["overrides"] += [word.replace("Mine", name) for word in typed]
        (directory / "summary.json").write_text(json.dumps(summary))
    assert [group.get("callbacks.mine") for group in group_runs(load_runs([old, other]))] == [
        "xformer.probes.mine.Mine", "xformer.probes.mine.Yours",
    ]  # fmt: skip


def test_a_run_of_before_whose_target_was_typed_stays_what_it_is(old: Path) -> None:
    full = str(target_at("attention", {"attention": "full"}))
    summary = json.loads((old / "summary.json").read_text())
    summary["overrides"] += [f"attention._target_={full}"]
    (old / "summary.json").write_text(json.dumps(summary))
    moved(old, str(target_at("attention", {"attention": "local"})), full)
    moved(old, "    window: 64\n", "")
    assert read_run(old).settings["attention"] == full
    moved(old, full, "xformer.nowhere.Full")
    (old / "summary.json").write_text(json.dumps(summary).replace(full, "xformer.nowhere.Full"))
    with pytest.raises(ConfigError, match=r"xformer\.nowhere\.Full is not of an option in conf/"):
        open_run(old)


# Code that moves


def source(kind: type) -> str:
    return kind.__module__.replace(".", "/") + ".py"


def rewrite(file: Path, change: Callable[[str], str]) -> None:
    text = file.read_text()
    changed = change(text)
    assert changed != text, file
    file.write_text(changed)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The package with a variant in another module and of another name, an attribute renamed, and a probe added."""
    package = tmp_path / "elsewhere" / "xformer"
    shutil.copytree(ROOT / "xformer", package, ignore=shutil.ignore_patterns("experiment", "__pycache__"))
    local: Any = target_at("attention", {"attention": "local"})
    name = local.rpartition(".")[2]
    file = package.parent / source(target(_node(local)))
    (package / "far").mkdir()
    (package / "far" / "__init__.py").write_text('"""Elsewhere."""\n')
    (package / "far" / "away.py").write_text(re.sub(rf"\b{name}\b", "Renamed", file.read_text()))
    file.unlink()
    rewrite(package / "conf/attention/local.yaml", lambda text: text.replace(local, "xformer.far.away.Renamed"))
    for kind in (Stack, EncoderDecoder):
        stated = f'class {kind.__name__}(Architecture):\n    stable_names = {{"trunk": "tower"}}\n'
        rewrite(
            package.parent / source(kind),
            lambda text, kind=kind, stated=stated: text.replace(f"class {kind.__name__}(Architecture):\n", stated),
        )
    used = [file for file in package.rglob("*.py") if re.search(r"\.tower\b(?! import)", file.read_text())]
    for file in used:
        rewrite(file, lambda text: re.sub(r"(?<!architecture)\.tower\b", ".trunk", text))
    probe = (
        f"from {Probe.__module__} import Probe\n\n\nclass Mine(Probe):\n"
        "    def measure(self, task, examples):\n        return {'mine': task.logits.weight.norm() * 0}\n"
    )
    (package / "far" / "mine.py").write_text(probe.replace("task.logits.weight", "next(task.parameters())"))
    (package / "conf/callbacks/mine.yaml").write_text("mine:\n  _target_: xformer.far.mine.Mine\n  examples: 2\n")
    return package.parent


def _node(name: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create({"_target_": name})


THERE = """
import json, sys
import torch
from pathlib import Path
from xformer.studies.grouping import group_runs
from xformer.runs.recorded_run import load_runs
from xformer.config.plan import Plan
from xformer.cli import train
from xformer.training.evaluate import evaluate
from xformer.runs.open_run import open_run, read_config
import xformer

old, here, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
metrics = evaluate(open_run(old)).metrics
for more in (["trainer.max_steps=6", "callbacks=[default,mine]", "hydra.run.dir=there"],
             ["trainer.max_steps=9", "resume=true", "hydra.run.dir=" + str(old)]):
    sys.argv = ["train.py", *words, *more, "cache=cache"]
    train()
    if "there" in more[-1]:
        groups = [[run.name for run in group.runs] for group in group_runs(load_runs([old, here, "there"]))]
plan = Plan.of(read_config(Path("there")))
plan.load_data()
task = plan.build_task()
assert hasattr(task.model, "trunk") and not hasattr(task.model, "tower")
torch.save(task.state_dict(), "initial.pt")
found = {"package": xformer.__file__, "groups": groups, "metrics": metrics,
         "attention": task.model.trunk.mixers[0][0].variant}
print("found " + json.dumps(found))
"""


def test_a_class_that_moved_an_attribute_renamed_and_a_probe_more_change_nothing(
    elsewhere: Path, old: Path, compose_job: ComposeJob, tmp_path: Path
) -> None:
    here, whole = (
        compose_job(*RUN, "trainer.max_steps=6"),
        compose_job(*RUN, "trainer.max_steps=9", directory=tmp_path / "whole"),
    )
    run(here)
    run(whole)
    said = results(old)
    words = [sys.executable, "-W", "ignore", "-c", THERE, str(old), str(here.directory), *RUN]
    environment = {**os.environ, "PYTHONPATH": str(elsewhere), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(re.findall(r"^found (.*)$", ended.stdout, re.MULTILINE)[0])
    there = old.parent / "there"
    assert found["package"].startswith(str(elsewhere))
    assert found["attention"] == "Renamed"
    assert "probe/mine" in read_summary(there).metrics
    assert found["groups"] == [[str(old), str(here.directory), "there"]]
    assert len(group_runs(load_runs([here.directory, there]))) == 1  # nor is it read otherwise here
    assert results(there) == results(here.directory)
    assert_close(found["metrics"], said, rtol=1e-4, atol=0)
    assert_close(results(old), results(whole.directory), rtol=1e-4, atol=0)  # resumed there
    plan = Plan.of(here.config)
    plan.load_data()
    ours, theirs = plan.build_task().state_dict(), torch.load(old.parent / "initial.pt", weights_only=True)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    opened, again = open_run(here.directory), open_run(there)  # which was written there, under the renamed attribute
    pairs = zip(opened.task.state_dict().values(), again.task.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)

"""The gate of a machine with a device, as far as a machine without one can tell: what it would run, and its limits."""

import csv
import json
import os
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ComposeJob
from tests.contracts.variants import MIXERS, TOYS
from xformer.benchmark.settings import settings
from xformer.config import compatibility
from xformer.config.groups import groups
from xformer.config.plan import Plan
from xformer.config.validate import validate
from xformer.core import devices
from xformer.errors import IncompatibleError

ROOT = Path(__file__).parents[1]


def loaded() -> Any:
    loader = SourceFileLoader("gpu_gate", str(ROOT / ".ci" / "gpu"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module  # where dataclasses look their annotations up
    loader.exec_module(module)
    return module


gate = loaded()
DEFAULT = ("tests", "trainings", "tables")


def jobs(work: Path, *chosen: str) -> dict[str, Any]:
    found = gate.parts(work, chosen or DEFAULT, "text.txt", None)
    return {job.name: job for part in found for job in part.jobs}


def python(name: str, code: str, seconds: float = 60.0, **more: Any) -> Any:
    return gate.Job(name, [sys.executable, "-S", "-c", code], seconds, **more)


def run(tmp_path: Path, part: Any, left: float = 60.0) -> dict[str, Any]:
    return {row.job: row for row in gate.run_part(part, tmp_path, dict(os.environ), left)}


PASS, FAIL, HANG = "print('well')", "raise SystemExit('no such thing')", "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {HANG}"


def test_one_that_hangs_costs_its_limit_and_not_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "GRACE", 0.5)
    named = [("passes", PASS, 60.0), ("hangs", HANG, 1.0), ("fails", FAIL, 60.0), ("ignores", STUBBORN, 1.0)]
    rows = run(tmp_path, gate.Part("part", 60.0, [python(*each) for each in [*named, ("last", PASS, 60.0)]]))
    assert {name: row.status for name, row in rows.items()} == {
        "passes": "passed", "hangs": "cut", "fails": "failed", "ignores": "cut", "last": "passed"
    }  # fmt: skip
    assert rows["fails"].note == "no such thing"
    assert rows["hangs"].seconds >= 1.0
    assert (tmp_path / "part-passes.log").read_text() == "well\n"


@pytest.mark.parametrize(("seconds", "left"), [(1.0, 60.0), (60.0, 1.0)])
def test_a_part_s_limit_ends_what_runs_and_what_has_not_begun(seconds: float, left: float, tmp_path: Path) -> None:
    part = gate.Part("part", seconds, [python("hangs", HANG), python("waits", PASS)])
    rows = run(tmp_path, part, left)
    assert (rows["hangs"].status, rows["waits"].status, rows["waits"].note) == ("cut", "cut", "not begun")


def test_several_run_at_once(tmp_path: Path) -> None:
    meet = (
        "import sys, time; from pathlib import Path; Path(sys.argv[1]).touch()\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    pair = [(tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")]
    both = [
        gate.Job(f"{number}", [sys.executable, "-S", "-c", meet, *map(str, files)], 60.0)
        for number, files in enumerate(pair)
    ]
    assert {row.status for row in run(tmp_path, gate.Part("part", 60.0, both, at_once=2)).values()} == {"passed"}


def test_what_a_job_started_ends_with_it(tmp_path: Path) -> None:
    started = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])"
    child = f"import subprocess, sys; print({started}.pid)"
    run(tmp_path, gate.Part("part", 60.0, [python("parent", child)]))
    number = int((tmp_path / "part-parent.log").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":  # ended, and nobody has asked how
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


def test_it_takes_at_most_nine_minutes(tmp_path: Path) -> None:
    parts = [gate.install(tmp_path, tmp_path), *gate.parts(tmp_path, DEFAULT, None, None)]
    assert sum(part.seconds for part in parts) <= gate.WHOLE <= 540 - gate.GRACE
    for part in parts:
        assert all(job.seconds <= part.seconds for job in part.jobs)
    assert 4 <= gate.PROCESSES <= 8


def test_every_test_marked_gpu_is_run(tmp_path: Path) -> None:
    mark = "pytest." + "mark.gpu"
    marked = {str(f.relative_to(ROOT)) for f in (ROOT / "tests").rglob("test_*.py") if mark in f.read_text()}
    shares = [job for name, job in jobs(tmp_path, "tests").items() if name.startswith("tests")]
    assert len(shares) == gate.PROCESSES
    assert "tests/attention/kernels/block_sparse/test_flex_attention.py" in marked
    assert all(marked == {word for word in job.command if word.startswith("tests/")} for job in shares)
    assert len({job.command[job.command.index("--share") + 1] for job in shares}) == gate.PROCESSES


def test_every_attention_is_trained_both_ways_and_its_command_can_be_run(
    tmp_path: Path, compose_job: ComposeJob
) -> None:
    found = jobs(tmp_path, "trainings")
    assert set(found) == {"default run", "default run, compiled", "default run, CUDA graphs"} | {
        f"{attention}, {form}" for attention in groups()["attention"] for form in ("causal", "bidirectional")
    }
    refused = set()
    for name, job in found.items():
        overrides = [word for word in job.command[2:] if not word.startswith(("hydra.", "cache="))]
        composed = compose_job(*overrides)
        validate(composed.config)
        try:
            compatibility.check_compatibility(composed.config, composed.choices)
        except IncompatibleError:
            refused.add(name)
        Plan.of(composed.config)
        assert composed.config.trainer.accelerator == "gpu"
        assert composed.config.on_incompatible == "skip"
        parsed = OverridesParser.create().parse_overrides(job.command[2:])
        assert not any(override.is_sweep_override() for override in parsed)  # also of where it is run
        assert composed.config.trainer.precision == ("32-true" if name.startswith("default run") else "bf16-mixed")
    assert refused == {"linformer, causal", *(f"{mixer}, bidirectional" for mixer in MIXERS if mixer not in TOYS)}


def test_every_table_is_of_settings_that_can_be_measured(tmp_path: Path) -> None:
    measured = [job for part in gate.parts(tmp_path, ["tables"], None, None) for job in part.jobs]
    assert {job.name.removeprefix("compile ") for job in measured} == {"attention", "decoders", "decoding", "models"}
    for job in measured:
        question, *words = job.command[job.command.index("benchmark") + 1 :]
        overrides = [word for word in words if "=" in word and not word.startswith("/")]
        assert "--gpu" in words
        settings(question, overrides, gpu=True)


def test_a_table_is_measured_alone(tmp_path: Path) -> None:
    alone = [part for part in gate.parts(tmp_path, DEFAULT, None, None) if part.name.startswith("alone")]
    assert [len(part.jobs) for part in alone] == [1, 1, 1, 1]


def test_what_is_timed_is_trained_alone(tmp_path: Path, compose_job: ComposeJob) -> None:
    parts = list(gate.parts(tmp_path, ["speed"], None, None))
    assert [len(part.jobs) for part in parts] == [1] * 6
    modes = set()
    for job in (part.jobs[0] for part in parts):
        job = compose_job(*(word for word in job.command[2:] if not word.startswith(("hydra.", "cache="))))
        validate(job.config)
        modes.add((job.choices.get("experiment"), job.config.compile))
    assert modes == {(which, how) for which in (None, "shakespeare_gpu") for how in (False, True, "reduce-overhead")}


def test_shakespeare_is_the_experiment(tmp_path: Path, compose_job: ComposeJob) -> None:
    (job,) = jobs(tmp_path, "shakespeare").values()
    config = compose_job(*(word for word in job.command[2:] if not word.startswith(("hydra.", "cache=")))).config
    assert (config.size.d_model, config.data.source.files) == (384, "text.txt")
    summary = tmp_path / "runs" / "shakespeare" / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"status": "finished", "monitor": {"name": "val/loss", "best": 1.46}}))
    assert job.note("passed") == ("passed", "val/loss 1.4600 (goal: val/loss 1.4697 or less)")


@pytest.mark.parametrize(
    ("summary", "status", "expected"),
    [
        ({"status": "skipped", "error": "It cannot."}, "passed", ("skipped", "It cannot.")),
        (
            {"status": "finished", "monitor": {"name": "val/loss", "best": 2.5}, "tokens_per_second": 5e5}
            | {"peak_memory_bytes": 3e9},
            "passed",
            ("passed", "val/loss 2.5000, 500,000 tokens/s, peak 3.00 GB"),
        ),
        ({"status": "finished", "monitor": {"name": "val/loss", "best": None}}, "passed", ("failed", "no metric")),
        ({"status": "failed"}, "failed", ("failed", "")),
        (None, "passed", ("failed", "")),
    ],
)
def test_a_run_is_told_by_its_summary(
    summary: dict[str, Any] | None, status: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    if summary is not None:
        (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert gate.run_note(tmp_path / "summary.json", status) == expected


def test_a_table_is_told_by_its_goals(tmp_path: Path) -> None:
    assert gate.table_note(tmp_path, "passed") == ("failed", "no row was measured")
    assert gate.table_note(tmp_path, "cut") == ("cut", "")
    content = {"rows": [{}, {}], "notes": ["speed: of it.", "Goals: 1 of 2 reached. Missed: local."]}
    (tmp_path / "pairs.json").write_text(json.dumps(content))
    assert gate.table_note(tmp_path, "cut") == ("cut", "2 rows. Goals: 1 of 2 reached. Missed: local.")


TESTS = """
import time
import pytest

def test_passes(): pass
def test_fails(): assert False
def test_waits():
    time.sleep(600)
@pytest.fixture
def broken(): raise ValueError
def test_has_a_broken_fixture(broken): pass
@pytest.mark.skip(reason="so")
def test_is_skipped(): pass
"""


def test_tests_are_dealt_out_and_one_that_waits_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(TESTS)
    found: dict[str, str] = {}
    for share in range(2):
        outcomes = tmp_path / f"{share}.jsonl"
        options = ["-p", "gpu_tests", "--share", f"{share}/2", "--each", "0.5", "--outcomes", str(outcomes)]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, *options, "test_them.py"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / ".ci")}, stdout=subprocess.DEVNULL, timeout=100,
        )  # fmt: skip
        dealt = gate.read_tests(outcomes)
        assert len(dealt) in (2, 3)
        assert not dealt.keys() & found.keys()
        found |= dealt
    assert {name.partition("::")[2]: outcome for name, outcome in found.items()} == {
        "test_passes": "passed", "test_fails": "failed", "test_waits": "failed",
        "test_has_a_broken_fixture": "failed", "test_is_skipped": "skipped",
    }  # fmt: skip


def test_tests_that_were_cut_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tests-0.jsonl"
    assert gate.tests_note(file, "cut") == ("cut", "none ran")
    outcomes = {"a": "passed", "b": "failed", "c": "begun", "d": "not begun"}
    file.write_text("".join(json.dumps({"test": t, "outcome": o}) + "\n" for t, o in outcomes.items()))
    status, note = gate.tests_note(file, "cut")
    assert status == "cut"
    assert note == "1 passed, 1 failed, 1 begun, 1 not begun; failed: b; begun: c; not begun: d"
    file.write_text(json.dumps({"test": "a", "outcome": "skipped"}))
    assert gate.tests_note(file, "passed")[0] == "failed"  # all of them skipped is nothing proved


def test_without_a_device_it_says_what_it_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "device", lambda environment: None)
    monkeypatch.setattr(gate, "run_part", None)
    assert gate.main(["--out", str(tmp_path)]) == gate.NO_DEVICE == 3
    said = capsys.readouterr().out
    with (tmp_path / "gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"would run"}
    assert {"default run", "attention", "local, causal"} <= {row["job"] for row in rows}
    assert json.loads((tmp_path / "gpu.json").read_text())["device"] is None
    assert "train.py" in said
    assert f"{len(rows)} would run" in said


@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_with_a_device_the_table_comes_last_and_all_is_in_one_folder(
    fails: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"question": "pairs", "rows": [{"speed": 2}], "notes": ["Goals: 0 of 1 reached. Missed: it."]}
    write = (
        "import json, pathlib, sys; f = pathlib.Path(sys.argv[1]); f.mkdir(parents=True); "
        f"(f / 'pairs.json').write_text({json.dumps(table)!r}); (f / 'pairs.csv').write_text('speed')"
    )

    def few(work: Path, chosen: Any, text: Any, nanogpt: Any) -> Any:
        results = work / "attention"
        measured = gate.Job(
            "attention", [sys.executable, "-S", "-c", write, str(results)], 60.0,
            note=lambda status: gate.table_note(results, status),
        )  # fmt: skip
        yield gate.Part("together", 60.0, [python("compile attention", FAIL), python("one", FAIL if fails else PASS)])
        yield gate.Part("alone", 60.0, [measured])

    monkeypatch.setattr(gate, "device", lambda environment: "NVIDIA H200, torch 2.11")
    monkeypatch.setattr(gate, "parts", few)
    assert gate.main(["--out", str(tmp_path)]) == code  # what is only compiled ahead does not decide
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].endswith("passed") or "failed" in lines[-1]
    assert any("attention" in line and "Missed: it." in line for line in lines)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "NVIDIA H200, torch 2.11"
    assert found["tables"]["attention"]["rows"] == [{"speed": 2}]
    assert (tmp_path / "attention.csv").is_file()
    assert "no such thing" in (tmp_path / "logs.txt").read_text()
    assert len(list(tmp_path.iterdir())) <= 8  # what a machine that is lent gives back


def test_wrong_arguments_are_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["test"], "test is not of tests, trainings"), (["shakespeare"], "needs its text")):
        with pytest.raises(SystemExit) as stopped:
            gate.main(arguments)
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_to_its_end_here(tmp_path: Path) -> None:
    found = subprocess.run(
        [ROOT / ".ci" / "gpu"], env={**os.environ, "OUT": str(tmp_path)}, capture_output=True, text=True, timeout=600
    )
    if not devices.is_available():
        assert "would run" in found.stdout
        assert found.returncode == gate.NO_DEVICE, found.stderr
    assert (tmp_path / "gpu.json").is_file()


def test_the_gate_of_every_machine_does_not_call_it() -> None:
    assert ".ci/gpu" not in (ROOT / ".ci" / "run").read_text()
    assert ".ci/gpu" in (ROOT / "CONTRIBUTING.md").read_text()

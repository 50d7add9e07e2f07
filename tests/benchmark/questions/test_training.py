"""What is told of a training step is true of it, and the peers are trained as ours is."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_energy import Counters
from xformer.benchmark.energy import Meter
from xformer.benchmark.questions import training
from xformer.benchmark.questions.training import OURS, measure
from xformer.benchmark.settings import settings
from xformer.benchmark.timing import REPEATED, Times, interleaved
from xformer.errors import ConfigError

TINY = "[task=language_modeling,data.block=16,data.batch_size=2,size=tiny,architecture.dropout=0.0]"
WHOLE = "whole=[task=masked_language_modeling,size=tiny,architecture.dropout=0.0]"
MODELS = "models=[{attention: full, length: 16}, {attention: linformer, rank: 4, length: 32}]"


def test_a_small_measurement_is_whole_and_is_kept(tmp_path: Path) -> None:
    config = settings(
        "training", [WHOLE, MODELS, f"model={TINY}", "vocabulary=50", "tokens=32", "rounds=1", "seconds=0"], quick=False
    )
    results = measure(config, peers=True)
    results.print()
    written = results.save(tmp_path)
    assert {path.suffix for path in written} == {".csv", ".json", ".png"}
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    ours = {row["variant"]: row for row in rows if row["against"] == "full 16"}
    assert list(ours) == ["full 16", "linformer 32", f"{REPEATED}: full 16"]
    assert [row["batch"] for row in ours.values()] == ["2", "1", "2"]  # as many tokens in every step
    theirs = [row["variant"] for row in rows if row["against"] == OURS]
    assert theirs[0] == OURS
    assert "torch TransformerEncoder" in theirs
    for row in results.rows:
        assert row["tokens_per_second"] == pytest.approx(row["batch"] * row["length"] / row["step_ms"] * 1000)
        assert row["flops"] > 0
        assert (row["watts"] is None) == (row["joules_per_token"] is None)


COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile calls a C++ compiler")


@pytest.mark.slow
@COMPILER
def test_decoders_are_compiled_alike_and_their_flops_are_those_of_the_model() -> None:
    """Without types checked while it runs, which would be compiled too, in a process of its own."""
    pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    typed = [f"model={TINY}", "vocabulary=50", "characters=50", "rounds=1", "seconds=0", "models=[]"]
    code = """
import json, sys
from xformer.benchmark.questions.training import measure
from xformer.benchmark.settings import settings
print(json.dumps([measure(settings("training", [*sys.argv[1:], *more]), peers=True).rows
    for more in ([], ["compiled=true", "others=[GPT-2 (transformers)]"])]))
"""
    found = subprocess.run([sys.executable, "-c", code, *typed], capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stderr
    eager, compiled = json.loads(found.stdout.splitlines()[-1])
    assert [row["variant"] for row in compiled] == [OURS, "GPT-2 (transformers)", f"{REPEATED}: {OURS}"]
    flops = {row["variant"]: row["flops"] for row in eager}
    assert all(row["flops"] == flops[row["variant"]] > 0 for row in compiled)


def test_where_there_is_nothing_to_measure_that_is_said() -> None:
    with pytest.raises(ConfigError, match=r"models=\[\] leaves nothing .* --peers"):
        measure(settings("training", ["models=[]"]), peers=False)


def test_energy_is_that_of_turns_long_enough_for_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def quickly(steps: dict[str, Callable[[], object]], *, least: float, **rest: Any) -> Times:
        asked.append(least)
        return interleaved(steps, **rest)

    monkeypatch.setattr(training, "interleaved", quickly)
    monkeypatch.setattr(Meter, "of_this_machine", lambda: Meter(Counters()))
    typed = [WHOLE, "models=[{attention: full, length: 16}]", "vocabulary=50", "tokens=32", "rounds=1"]
    results = measure(settings("training", typed, quick=False), peers=False)
    assert asked == [1.0]
    assert [row["watts"] for row in results.rows] == [120, 120]
    for row in results.rows:
        assert row["joules_per_token"] == pytest.approx(120 / row["tokens_per_second"])

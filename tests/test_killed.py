"""Runs that were killed at any moment and went on are the runs that nobody killed, bit for bit.

Twenty seeds choose the moments for each of the four signals, spread over the eight kinds of run so that every kind
meets every signal and every place. All of them in every kind, which takes eight times as long:

    python -m tests.killed.server DIRECTORY 20 every
"""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killed.server import KINDS, SIGNALS, scenarios
from tests.killed.strike import place_of

ROOT = Path(__file__).parents[1]
SEEDS = 20


def test_every_kind_of_run_meets_every_signal_and_every_place() -> None:
    planned = scenarios(SEEDS, [*KINDS])
    assert len(planned) == SEEDS * len(SIGNALS)
    assert {(kind, number) for kind, number, _ in planned} == {(kind, number) for kind in KINDS for number in SIGNALS}
    places = {"training", "validation", "writing"}
    assert {(kind, place_of(seed)) for kind, _, seed in planned} >= {
        (kind, place) for kind in KINDS for place in places
    }
    share = collections.Counter(place_of(seed) for seed in range(SEEDS))
    assert (share["validation"], share["writing"]) == (SEEDS // 5, SEEDS // 5)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.killed.server", str(tmp_path), str(SEEDS)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "results.txt").read_text().splitlines()]
    assert len(found) == SEEDS * len(SIGNALS)
    assert [said for *_, said in found if said is not None] == []

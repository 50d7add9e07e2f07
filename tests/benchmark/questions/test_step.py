"""A part of the loop has its own time and not that of the parts in it; every step of a run is in one measurement."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from xformer.benchmark.questions import step
from xformer.benchmark.questions.step import KERNELS, OPERATORS, OTHER, PARTS, STEP, WAITS, PartTimer, measure
from xformer.benchmark.settings import settings
from xformer.errors import XformerError


def test_a_part_has_the_time_that_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(step, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    parts = PartTimer()
    parts.start("[Strategy]Single.training_step")  # before anybody watches
    parts.watching = True
    parts.stop("[Strategy]Single.training_step")
    parts.start("[LightningModule]Task.optimizer_step")
    now[0] += 1.0
    parts.start("[Strategy]Single.training_step")
    now[0] += 2.0
    parts.stop("[Strategy]Single.training_step")
    now[0] += 4.0
    parts.start("[Callback]Throughput.on_train_batch_end")
    now[0] += 8.0
    parts.start("run_something_new")
    now[0] += 16.0
    for _ in range(3):
        parts.stop("whatever")
    assert parts.seconds == {"optimiser": 5.0, "forward and loss": 2.0, "callbacks": 8.0, OTHER: 16.0}
    assert parts.calls == {"optimiser": 1, "forward and loss": 1, "callbacks": 1, OTHER: 1}


def test_the_names_of_the_parts_are_those_that_the_trainer_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is found as often as a step has it; else it would be told as the Trainer's own."""
    monkeypatch.setenv("XFORMER_CACHE", str(tmp_path))
    sizes = [
        "data.generation.train_size=200",
        "data.generation.val_size=8",
        "data.generation.test_size=8",
        "data.loader.batch_size=2",
        "size=tiny",
    ]
    config = settings("step", [f"train=[{','.join(sizes)}]", "compile=[false]", "steps=4"], quick=False)
    rows = {row["what"]: row for row in measure(config, peers=False).rows}
    assert set(rows) == {STEP, OPERATORS, *(f"host: {part}" for part in (*PARTS, OTHER))}
    assert {KERNELS, WAITS}.isdisjoint(rows)  # of a GPU alone
    once = ("fetching the batch", "forward and loss", "backward", "clipping", "schedule")
    assert all(rows[f"host: {part}"]["calls"] == 1 for part in once)
    assert all(rows[f"host: {part}"]["calls"] >= 1 for part in PARTS)
    assert sum(row["share"] for what, row in rows.items() if what.startswith("host")) == pytest.approx(1)
    assert rows[OPERATORS]["calls"] > 100
    assert rows[STEP]["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attention=gla", "attention=gla does not go with architecture=encoder: .*; what would work: attention="),
        ("size.heads=0", "size.heads=0 .* 1"),
        ("sizes=3", "sizes is not a key"),
    ],
)
def test_a_run_that_cannot_be_trained_is_refused_as_train_refuses_it(override: str, words: str) -> None:
    config = settings("step", [f"train=[{override}]"])
    with pytest.raises(XformerError, match=words):
        measure(config, peers=False)

"""The time of loading is that of the loader, a batch at a time."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from xformer.benchmark.questions import overhead
from xformer.benchmark.questions.overhead import STEPS, WARMUP, loading
from xformer.benchmark.whole import composed
from xformer.build import Plan


def test_loading_is_the_time_of_a_batch_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Plan.of(composed(["task=language_modeling"])).data
    now = [0.0]

    def batches() -> Iterator[Any]:
        for number in range(STEPS):
            now[0] += 5.0 if number < WARMUP else 0.25
            yield None

    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(data, "train_dataloader", batches)
    assert loading(data) == 0.25
    assert now == [5 * WARMUP + 0.25 * (STEPS - WARMUP)]

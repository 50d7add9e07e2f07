"""Each side's clock runs while it works, and the loader's a batch at a time."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from xformer.benchmark.models import composed_config
from xformer.benchmark.questions import overhead
from xformer.benchmark.questions.overhead import STEPS, TRAINER, WARMUP, InterleavedSteps, loading_seconds
from xformer.benchmark.settings import settings
from xformer.config.plan import Plan
from xformer.errors import XformerError


def test_loading_is_the_time_of_a_batch_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Plan.of(composed_config(["task=language_modeling"])).data
    now = [0.0]

    def batches() -> Iterator[Any]:
        for number in range(STEPS):
            now[0] += 5.0 if number < WARMUP else 0.25
            yield None

    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(data, "train_dataloader", batches)
    assert loading_seconds(data) == 0.25
    assert now == [5 * WARMUP + 0.25 * (STEPS - WARMUP)]


def test_the_trainers_clock_stands_still_while_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def other(seconds: float) -> Iterator[None]:
        while True:
            now[0] += seconds
            yield

    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    on_progress: list[float] = []
    between = InterleavedSteps({"one": other(4.0), "two": other(16.0)}, lambda: on_progress.append(now[0]))
    for step in range(WARMUP + 3):
        now[0] += 1.0
        monkeypatch.setattr(Trainer, "global_step", step + 1)
        between.on_train_batch_end(trainer, LightningModule(), None, None, step)
    assert len(on_progress) == WARMUP + 3
    assert between.seconds == {"one": [4.0] * 3, "two": [16.0] * 3, TRAINER: [1.0] * 3}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attention=gla", "attention=gla does not go with architecture=encoder: .*; what would work: attention="),
        ("size.heads=0", "size.heads=0 .* 1"),
        ("sizes=3", "sizes is not a key"),
    ],
)
def test_a_run_that_cannot_be_trained_is_refused_as_train_refuses_it(override: str, words: str) -> None:
    config = settings("overhead", [f"model=[{override}]"])
    with pytest.raises(XformerError, match=words):
        overhead.measure(config, peers=False)

"""The bar: it is full when all is measured."""

from importlib import import_module

import pytest
from rich.progress import Progress

from xformer.benchmark.settings import READ, settings

TINY = [
    "rounds=1",
    "seconds=0",
    "heads=1",
    "vocabulary=50",
    "tokens=8",
    "model=[task=language_modeling,data.block=16,data.loader.batch_size=2,size=tiny]",
]
SMALL = {
    "attention": ["lengths=[8]", "causal=[true]", "variants=[{attention: full}]"],
    "pairs": ["pairs=[{attention: full, length: 8, against: torch fused}]"],
    "training": ["whole=[task=masked_language_modeling,size=tiny]", "models=[{attention: full, length: 8}]"],
    "decoding": ["variants=[{attention: full}, {attention: linformer}]", "contexts=[8]", "batches=[1]", "new_tokens=1"],
    "overhead": [],
}


@pytest.mark.parametrize("question", SMALL)
def test_the_bar_is_full_when_all_is_measured(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[float | None, float]] = []
    stop = Progress.stop

    def note(progress: Progress) -> None:
        found.extend((task.total, task.completed) for task in progress.tasks)
        stop(progress)

    monkeypatch.setattr(Progress, "stop", note)
    read = [override for override in TINY if override.partition("=")[0] in READ[question]]
    config = settings(question, [*read, *SMALL[question]], quick=False)
    import_module(f"xformer.benchmark.questions.{question}").measure(config, peers=False)
    assert [total for total, _ in found] == [completed for _, completed in found] != []

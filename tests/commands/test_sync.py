"""`xformer sync`: each offline run is told as it is done with, and all are counted."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Command
from xformer.studies import sync
from xformer.studies.study import Study, studies


@pytest.mark.parametrize("named", ["a directory", "a study"])
def test_runs_are_told_one_by_one_and_counted(
    named: str, xformer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = str(tmp_path) if named == "a directory" else studies()[0]
    asked: list[Path] = []

    def uploaded(directories: Sequence[Path], service: object) -> Iterator[tuple[Path, bool]]:
        asked.extend(directories)
        yield from ((Path(f"run-{number}"), number != 1) for number in range(3))

    monkeypatch.setattr(sync, "sync_runs", uploaded)
    code, shown, _ = xformer("sync", word)
    assert code == 0
    assert [line.split() for line in shown.splitlines()] == [
        ["uploaded", "run-0"],
        ["already", "there", "run-1"],
        ["uploaded", "run-2"],
        ["2", "of", "3", "offline", "runs", "uploaded"],
    ]
    assert asked == [tmp_path if named == "a directory" else Study.of(word).directory]

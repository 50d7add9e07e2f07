"""What a table shows is what was measured, and what is not known is said."""

import json
from pathlib import Path

import pytest

from xformer.benchmark.results import Results

ROWS = [{"what": "one", "watts": None, "ms": 1.25}, {"what": "two words", "watts": 31.0, "ms": 12.5}]
SHOWN = {"what": ("what", ""), "watts": ("watts", ".0f"), "ms": ("ms", ".1f")}


def test_a_number_that_is_not_there_is_not_exposed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    on_progress = {"dtype": "bfloat16", "lengths": [1, 2]}
    results = Results("question", ROWS, SHOWN, notes=["A sentence."], settings=on_progress)
    results.print()
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == "Settings: dtype bfloat16; the JSON has all."
    lines = [line for line in shown if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells == [["one", "not exposed", "1.2"], ["two words", "31", "12.5"]]
    record = json.loads(next(path for path in results.save(tmp_path) if path.suffix == ".json").read_text())
    assert record["rows"] == ROWS
    assert record["settings"] == {"dtype": "bfloat16", "lengths": [1, 2]}
    assert {"torch", "python"} <= set(record["versions"])
    assert record["hardware"]["cores"] > 0

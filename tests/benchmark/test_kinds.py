"""A kind of value takes what it says, and refuses the rest in a sentence that says what would work."""

import math
from pathlib import Path
from typing import Any

import pytest

from xformer.benchmark.kinds import (
    COMPILE,
    COUNT,
    ENTRIES,
    GOAL,
    NAMES,
    NANOGPT,
    SECONDS,
    TRUTH,
    Kind,
    non_empty_list,
    one_of,
)
from xformer.errors import ConfigError

TAKES: list[tuple[Kind, list[Any], list[Any]]] = [
    (COUNT, [1, 10**9], [0, -1, 1.0, True, "1", None]),
    (SECONDS, [0, 0.5, 3], [-0.1, math.inf, math.nan, True, "1", None]),
    (GOAL, [None, 0.1, 4], [0, -1, math.inf, math.nan, True, "1"]),
    (TRUTH, [True, False], [0, 1, "true", None]),
    (COMPILE, [True, False, "reduce-overhead"], ["default", 1, None]),
    (NAMES, [None, [], ["a"]], ["a", [1], {}]),
    (ENTRIES, [[], [{}]], [{}, None, ["full"]]),
    (one_of("a", "b"), ["a", "b"], ["c", "", None, 1]),
    (non_empty_list(COUNT), [[1], [2, 3]], [[], 1, [0], [1, "2"], None]),
]


@pytest.mark.parametrize(
    ("kind", "good", "bad"), TAKES, ids=lambda value: value.words if isinstance(value, Kind) else ""
)
def test_what_fits_passes_and_what_does_not_is_named_with_what_would(
    kind: Kind, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        kind.check("key", value)
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            kind.check("key", value)
        assert str(caught.value) == f"key={value} is not valid; it has to be {kind.words}."


def test_nanogpt_is_a_file_or_the_directory_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("")
    assert all(NANOGPT.fits(workload) for workload in (None, str(tmp_path), str(tmp_path / "model.py")))
    (tmp_path / "model.py").unlink()
    assert not any(NANOGPT.fits(workload) for workload in (str(tmp_path), str(tmp_path / "model.py"), 1))

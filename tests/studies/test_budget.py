"""What a group cost: means of what every run recorded, and differences of more than 5 %."""

from pathlib import Path

import pytest

from tests.studies.conftest import MakeRun
from xformer.runs.recorded_run import load_runs
from xformer.studies.budget import Budget, format_quantity, si_number, spent_budget, unequal_budgets


def test_a_budget_is_the_mean_of_what_all_runs_recorded(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(0.5, seed=0, parameters=100, flops_per_token=10.0, tokens_seen=50, wall_seconds=4.0)
    make_run(0.5, seed=1, parameters=300, flops_per_token=20.0, tokens_seen=100, wall_seconds=None)
    found = spent_budget(load_runs([tmp_path / "sweep"]))
    assert (found.parameters, found.tokens, found.flops) == (200, 75, (500 + 2000) / 2)
    assert found.seconds is None  # as one of them did not record it
    assert spent_budget([]) == Budget(None, None, None, None, None)


@pytest.mark.parametrize(("other", "reasons"), [(104.0, False), (105.0, False), (106.0, True), (95.0, True)])
def test_more_than_5_per_cent_is_a_difference_and_is_said(other: float, reasons: bool) -> None:
    def of(parameters: float) -> Budget:
        return Budget(parameters, None, None, None, None)

    sentences = unequal_budgets({"one": of(100.0), "unknown": Budget(None, None, None, None, None), "other": of(other)})
    assert bool(sentences) == reasons
    if other == 106:
        assert sentences == ["the groups differ by 6 % in parameters: 100 (one) to 106 (other)."]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("parameters", 109_898.0, "109,898"), ("flops", 3.2e9, "3.2 GFLOPs"), ("seconds", 97.04, "97.0 s"),
        ("seconds", 5400.4, "5,400 s"), ("tokens", 785e3, "785 k"), ("memory", 2e8, "200 MB"), ("flops", None, "-"),
    ],
)  # fmt: skip
def test_a_quantity_is_read_at_a_glance(name: str, value: float | None, text: str) -> None:
    assert format_quantity(name, value) == text


def test_a_prefix_changes_where_three_digits_no_longer_do() -> None:
    assert [si_number(number) for number in (0.0, 999.4, 999.6, 1e18)] == ["0 ", "999 ", "1 k", "1 E"]

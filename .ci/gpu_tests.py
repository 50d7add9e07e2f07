"""For pytest: deals tests out to several processes, gives each a limit, and writes down what came of it as it comes."""

import json
import signal
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--share 2/8`: the third of eight shares; `--each 100`: seconds of a test; `--outcomes FILE`: a JSON a line."""
    parser.addoption("--share", default="0/1")
    parser.addoption("--each", type=float, default=0.0)
    parser.addoption("--outcomes", type=Path)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep this process's share of those that are left, and say of all that they have not begun."""
    number, of = map(int, config.getoption("share").split("/"))
    others = [item for place, item in enumerate(items) if place % of != number]
    items[:] = items[number::of]
    config.hook.pytest_deselected(items=others)
    for item in items:
        _write(config, item.nodeid, "not begun")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say that it has begun."""
    _write(item.config, item.nodeid, "begun")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Raise in a test that takes too long; one that does not come back to Python is its process's limit to end."""
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, item.config.getoption("each"))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stop(number: int, frame: FrameType | None) -> None:
    pytest.fail("took longer than a test may")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write down what came of it; a failure of what is before or after the test counts as the test's."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        _write(item.config, item.nodeid, report.outcome)
    return report


def _write(config: pytest.Config, test: str, outcome: str) -> None:
    file: Path | None = config.getoption("outcomes")
    if file is not None:
        with file.open("a") as stream:
            stream.write(json.dumps({"test": test, "outcome": outcome}) + "\n")

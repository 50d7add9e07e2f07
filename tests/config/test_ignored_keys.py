"""Which callbacks can change a result: what their classes declare, and what is known of Lightning's."""

from typing import Any

import pytest
from lightning.pytorch import Callback

from xformer.config import ignored_keys
from xformer.config.ignored_keys import find_ignored_keys, option_ignored_keys
from xformer.config.validate import groups

LIGHTNING = "lightning.pytorch.callbacks."


def test_of_the_callbacks_of_conf_these_decide() -> None:
    keys = {f"callbacks.{name}" for name in ignored_keys._options()}
    assert keys - option_ignored_keys() == {
        f"callbacks.{name}" for name in ("finite_loss", "exact_resume", "checkpoint", "curriculum", "early_stopping")
    }
    assert len(keys) > len(groups()["callbacks"])


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"_target_": f"{LIGHTNING}LearningRateMonitor"}, [""]),
        ({"_target_": f"{LIGHTNING}TQDMProgressBar"}, [""]),
        ({"_target_": f"{LIGHTNING}ModelCheckpoint", "filename": "last"}, [""]),
        ({"_target_": f"{LIGHTNING}ModelCheckpoint", "monitor": "x"}, [".dirpath", ".enable_version_counter"]),
        ({"_target_": f"{LIGHTNING}StochasticWeightAveraging", "swa_lrs": 0.1}, []),
        ({"_target_": f"{LIGHTNING}DeviceStatsMonitor"}, []),  # of which nothing is known, so it may
        ({"examples": 4}, []),
        (None, []),
    ],
)
def test_what_is_not_known_to_be_without_effect_has_one(node: Any, found: list[str]) -> None:
    assert find_ignored_keys({"mine": node}) == [f"callbacks.mine{key}" for key in found]


def test_a_callback_that_was_removed_is_the_one_of_its_option() -> None:
    assert find_ignored_keys({"progress": None, "throughput": None, "finite_loss": None}) == [
        "callbacks.progress", "callbacks.throughput",
    ]  # fmt: skip


@pytest.mark.parametrize(("declares", "found"), [(None, []), (True, []), (False, ["callbacks.mine"])])
def test_a_class_says_it_itself(declares: bool | None, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("Mine", (Callback,), {} if declares is None else {"changes_result": declares})
    monkeypatch.setattr(ignored_keys, "Mine", kind, raising=False)
    assert find_ignored_keys({"mine": {"_target_": f"{ignored_keys.__name__}.Mine"}}) == found

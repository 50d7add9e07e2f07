"""The `tune` block of a study: what it declares, and what is refused in a sentence."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from xformer.config.groups import CONF
from xformer.config.tune import TunePlan, check_metric
from xformer.config.validate import validate
from xformer.errors import ConfigError


def tune(**block: Any) -> TunePlan:
    found = TunePlan.of({"question": "Which?", "tune": block})
    assert found is not None
    return found


def test_a_study_without_the_block_tunes_nothing() -> None:
    assert TunePlan.of(None) is None
    assert TunePlan.of({"question": "Which?"}) is None
    assert TunePlan.of({"question": "Which?", "tune": None}) is None


def test_trials_are_the_product_of_values_with_every_seed() -> None:
    plan = tune(**{"optimizer.lr": [1e-3, 3e-3], "optimizer.weight_decay": [0, 0.1], "seeds": [100, 101]})
    assert plan.metric is None
    assert len(plan.trials) == 8
    assert plan.trials[0] == ["optimizer.lr=0.001", "optimizer.weight_decay=0", "seed=100"]
    assert len({tuple(trial) for trial in plan.trials}) == 8
    assert plan.settings[-1] == {"optimizer.lr": 3e-3, "optimizer.weight_decay": 0.1}


def test_nested_keys_are_dotted_ones() -> None:
    nested = tune(optimizer={"lr": [1e-3, 3e-3]}, seeds=[100], metric="val/loss")
    assert nested == tune(**{"optimizer.lr": [1e-3, 3e-3]}, seeds=[100], metric="val/loss")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (0.001, ["study.tune=0.001", "a mapping of keys to lists"]),
        ({"seeds": [100]}, ["names nothing to tune", "optimizer.lr: [1.0e-3"]),
        ({"optimizer.lr": 0.001, "seeds": [100]}, ["study.tune.optimizer.lr=0.001", "a list of values"]),
        ({"optimizer.lr": "1e-3,3e-3", "seeds": [100]}, ["study.tune.optimizer.lr=1e-3,3e-3", "a list of values"]),
        ({"optimizer.lr": [0.001], "seeds": [100]}, ["[0.001] leaves nothing to choose"]),
        ({"optimizer.lr": [0.001, 1e-3], "seeds": [100]}, ["has 0.001 twice"]),
        ({"optimizer.lr": [[0.001], 1e-3], "seeds": [100]}, ["has [0.001]", "use numbers, names"]),
        ({"optimizer.lr": [0.001, 0.01]}, ["study.tune lacks seeds", "such as seeds: [100, 101]"]),
        ({"optimizer.lr": [0.001, 0.01], "seeds": 100}, ["study.tune.seeds=100", "distinct whole numbers"]),
        ({"optimizer.lr": [0.001, 0.01], "seeds": []}, ["study.tune.seeds=[]"]),
        ({"optimizer.lr": [0.001, 0.01], "seeds": [1, 1]}, ["study.tune.seeds=[1, 1]"]),
        ({"optimizer.lr": [0.001, 0.01], "seeds": [True]}, ["study.tune.seeds=[True]"]),
        ({"seed": [0, 1], "seeds": [100]}, ["study.tune.seed cannot be tuned", "study.tune.seeds"]),
        (
            {"optimizer.lr": [0.001, 0.01], "seeds": [100], "metric": "test/loss"},
            ["study.tune.metric=test/loss is no validation metric", "val/loss"],
        ),
        ({"optimizer.lr": [0.001, 0.01], "seeds": [100], "metrc": "val/loss"}, ["study.tune.metrc=val/loss"]),
    ],
)
def test_a_block_that_is_none_is_a_sentence(block: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        TunePlan.of({"tune": block})
    for word in words:
        assert word in str(caught.value)


def test_a_seed_of_trials_is_no_seed_of_final_runs() -> None:
    plan = tune(**{"optimizer.lr": [1e-3, 3e-3]}, seeds=[2, 100])
    plan.refuse_final_seeds([0, 1])
    with pytest.raises(ConfigError, match=r"study.tune.seeds=\[2, 100\] has 2, .* use others, such as \[102, 103\]"):
        plan.refuse_final_seeds([0, 1, 2])


def test_a_monitor_of_training_does_not_choose() -> None:
    check_metric("val/accuracy", "monitor.name")
    with pytest.raises(ConfigError, match=r"monitor\.name=train/loss is no validation metric"):
        check_metric("train/loss", "monitor.name")


def test_a_configuration_with_the_block_is_valid() -> None:
    block = "{optimizer.lr: [0.001, 0.003], seeds: [100], metric: val/loss}"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"+study={{question: Which, tune: {block}}}"])
        validate(config)

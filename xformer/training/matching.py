"""Size matching: one dimension is adjusted until a model costs as much as a reference.

The reference of `match=parameters` and `match=flops` is the same configuration with the choices of `match.to`. The
dimension `match.by` is set to the integer whose parameters, or FLOPs per token of a training step on the longest
sequence, are nearest to the reference's. The run is bit-identical to one with this number set by hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import torch
from omegaconf import DictConfig, OmegaConf

from xformer.config.groups import groups, nearest, option_nodes, slots
from xformer.config.match import UNITS, Match, Matched, Measure
from xformer.config.plan import Plan
from xformer.config.validate import instantiate_node
from xformer.errors import ConfigError
from xformer.training import cost


def match_size(plan: Plan) -> Plan:
    """Adjust the dimension in the configuration and build a new plan; without `match`, the plan is returned unchanged.

    Args:
        plan: the plan, with its data loaded. In its configuration the dimension is set, and `match.was` to its old
            value.

    Raises:
        ConfigError: the reference or the dimension is not valid, or the dimension cannot make the costs equal.
    """
    config = plan.config
    if config.get("match") is None:
        return plan
    asked: Match = instantiate_node(config.match)
    was = _dimension(config, asked.by) if asked.was is None else asked.was
    step = config.size.heads if asked.by == "size.d_model" else 1  # of the features, each head has as many

    def resized(value: int) -> DictConfig:
        return _changed(config, asked.by, value)

    @cache
    def cost_of(value: int) -> float:
        return _cost(resized(value), plan, asked.measure)

    reference = _cost(_with(resized(was), asked.to), plan, asked.measure)
    if cost_of(was) == cost_of(was + step):
        raise ConfigError(
            f"match.by={asked.by} does not change the {UNITS[asked.measure]}: use another, such as size.feed_forward."
        )
    if cost_of(step) > reference:
        raise ConfigError(
            f"match={asked.measure} is out of reach: with {asked.reference} there are {reference:,.0f} "
            f"{UNITS[asked.measure]}, and this model has {cost_of(step):,.0f} even with {asked.by}={step}; use "
            "another match.by, or a model that costs less."
        )
    below = _last_below(cost_of, reference, was, step)
    now = min((below, below + step), key=lambda value: abs(cost_of(value) - reference))
    reached = cost_of(now)
    difference = 100 * (reached / reference - 1)
    OmegaConf.update(config, asked.by, now)
    config.match.was = was
    matched = Matched(asked.measure, asked.reference, asked.by, was, now, reference, reached, difference)
    return replace(Plan.of(config), data=plan.data, matched=matched)


def _last_below(cost_of: Callable[[int], float], most: float, start: int, step: int) -> int:
    """The largest multiple of `step` with at most this cost; requires that `step` itself fits and that cost grows."""
    low, high = step, max(start, 2 * step)
    while cost_of(high) <= most:
        low, high = high, 2 * high
    halve = False
    while high - low > step:
        # What grows in a straight line is found at once; halving every other time bounds the search otherwise.
        share = 0.5 if halve else (most - cost_of(low)) / (cost_of(high) - cost_of(low))
        middle = low + step * max(1, min(int(share * (high - low)) // step, (high - low) // step - 1))
        low, high = (middle, high) if cost_of(middle) <= most else (low, middle)
        halve = not halve
    return low


def _dimension(config: DictConfig, key: str) -> int:
    value = OmegaConf.select(config, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"match.by={key} is not a dimension of this run: use one, such as size.feed_forward.")
    return value


def _with(config: DictConfig, choices: Mapping[str, str]) -> DictConfig:
    """A copy of the configuration with other options in groups or slots."""
    for key, option in choices.items():
        group = slots().get(key, key)
        if group not in groups() or key not in config:
            raise ConfigError(f"match.to.{key}={option}: {key} is not a choice of this run; {nearest(key, groups())}")
        options = dict(option_nodes(group))
        if option not in options:
            raise ConfigError(f"match.to.{key}={option} is not an option; {nearest(option, options)}")
        config = _changed(config, key, options[option])
    return config


def _changed(config: DictConfig, key: str, value: object) -> DictConfig:
    other = config.copy()
    OmegaConf.update(other, key, value, merge=False)
    return other


def _cost(config: DictConfig, plan: Plan, measure: Measure) -> float:
    with torch.random.fork_rng(devices=[]):
        task = replace(Plan.of(config), data=plan.data).build_task()
        return float(
            cost.trainable_parameters(task)
            if measure == "parameters"
            else cost.training_flops_per_token(task, plan.data.spec)
        )

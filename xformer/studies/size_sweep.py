"""A comparison over sizes too: each setting's losses by scale, and its difference to the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xformer.studies.budget import format_quantity, si_number
from xformer.studies.comparison import Comparison, ComparisonRow
from xformer.studies.grouping import group_name
from xformer.studies.power_law import FEWEST
from xformer.studies.scaling import DifferenceByScale, ScaledLosses, difference_by_scale, judge_trends
from xformer.studies.statistics import ALPHA, PairedComparison

UNITS = {"parameters": "parameters", "flops": "training FLOPs"}
"""What a size is measured by, as `Comparison.scale` calls it, and the words for it."""


@dataclass(frozen=True)
class SizeSweep:
    """The settings of a comparison that were run at three sizes or more.

    Attributes:
        losses: by setting, without its size.
        differences: by setting, to the setting that is its baseline.
        baselines: by setting, the name of that.
    """

    losses: Mapping[str, ScaledLosses]
    differences: Mapping[str, DifferenceByScale] = field(default_factory=dict)
    baselines: Mapping[str, str] = field(default_factory=dict)


def size_sweep(comparison: Comparison) -> SizeSweep | None:
    """The sweep over sizes in a comparison; None where there is none, or where more of the metric is better.

    A size is what `size` or a key of it (`size.d_model`) sets. Settings that have fewer than three sizes with a known
    number of parameters (or FLOPs), or fewer than two seeds that all sizes have, are left out.
    """
    keys = [key for key in comparison.differ.named if not _is_size(key)]
    if comparison.metric.mode != "min" or len(keys) == len(comparison.differ.named):
        return None
    by_setting: dict[tuple[str, ...], list[ComparisonRow]] = {}
    for row in comparison.rows:
        by_setting.setdefault(tuple(row.group.get(key) for key in keys), []).append(row)
    usable = {setting: rows for setting, rows in by_setting.items() if _sizes(rows, comparison.scale) >= FEWEST}
    losses: dict[str, ScaledLosses] = {}
    differences: dict[str, DifferenceByScale] = {}
    baselines: dict[str, str] = {}
    first = next((row for row in comparison.rows if row.verdict == "baseline"), comparison.rows[0])
    wanted = [key for key in keys if f" {key}={first.group.get(key)} " in f" {comparison.baseline} "]
    for setting, rows in usable.items():
        of = [
            first.group.get(key) if key in wanted or not wanted else value
            for key, value in zip(keys, setting, strict=True)
        ]
        other, name = usable.get(tuple(of)), group_name(rows[0].group, keys)
        if (found := _losses(rows, rows, comparison.scale)) is not None:
            losses[name] = found
        if other is None or other is rows:
            continue
        pair = [_losses(each, [*rows, *other], comparison.scale) for each in (rows, other)]
        if pair[0] is None or pair[1] is None or not _overlap(pair[0], pair[1]):
            continue
        differences[name] = difference_by_scale(pair[0], pair[1])
        baselines[name] = group_name(other[0].group, keys)
    judged = judge_trends(list(differences.values()))
    return SizeSweep(losses, dict(zip(differences, judged, strict=True)), baselines) if losses else None


def scaling_sentences(comparison: Comparison) -> list[str]:
    """A sentence for each setting: what the difference to its baseline does with scale, and where that ends."""
    sweep, unit = size_sweep(comparison), comparison.scale
    if sweep is None:
        return []
    found = []
    for name, each in sweep.differences.items():
        size = [f"{_size(unit, scale)} {UNITS[unit]}" for scale in (each.scales[0], each.largest)]
        crossing = f", crossing at about {_size(unit, each.crossing)}" if _crosses(each) and each.crossing else ""
        end = (
            f"nothing is said beyond {each.beyond:.3g} times that, {_size(unit, each.scales[-1])}: {each.why}"
            if each.beyond > 1
            else f"nothing is said beyond that: {each.why}"
        )
        found.append(
            f"{name}: the difference to {sweep.baselines[name]} {_words(each)} ({comparison.metric.name} "
            f"{_at(each.first)} at {size[0]}, {_at(each.last)} at {size[1]}, p {_p(each.p)}){crossing}; {end}."
        )
    return found


def _words(each: DifferenceByScale) -> str:
    return "shows no change with scale" if each.trend.startswith("no") else each.trend


def _crosses(each: DifferenceByScale) -> bool:
    return each.trend == "crosses over"


def _at(end: PairedComparison) -> str:
    between = end.interval(ALPHA)
    reach = f" [{between.low:+.3g}, {between.high:+.3g}]" if between else ""
    return f"{end.mean:+.3g}{reach}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _size(unit: str, value: float) -> str:
    return si_number(value).strip() if unit == "parameters" else format_quantity(unit, value)


def _is_size(key: str) -> bool:
    return key == "size" or key.startswith("size.")


def _sizes(rows: Sequence[ComparisonRow], unit: str) -> int:
    return len({getattr(row.budget, unit) for row in rows} - {None, 0})


def _losses(rows: Sequence[ComparisonRow], alike: Sequence[ComparisonRow], unit: str) -> ScaledLosses | None:
    """The losses of some rows, in the seeds that all of `alike` have; None where these are fewer than two."""
    known = [row for row in rows if getattr(row.budget, unit)]
    seeds = sorted(set.intersection(*(set(row.values) for row in alike)), key=lambda seed: seed or 0)
    if len(seeds) < 2:
        return None
    known.sort(key=lambda row: float(getattr(row.budget, unit)))
    scales = np.array([getattr(row.budget, unit) for row in known], dtype=float)
    return ScaledLosses(scales, np.array([[row.values[seed] for seed in seeds] for row in known], dtype=float))


def _overlap(losses: ScaledLosses, others: ScaledLosses) -> bool:
    smallest = max(losses.scales.min(), others.scales.min())
    return bool(smallest < min(losses.scales.max(), others.scales.max()))

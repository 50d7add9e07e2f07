"""The summary of a run: one strict JSON file, written atomically."""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from xformer.config.moved import new_key, new_overrides
from xformer.config.redact import redact
from xformer.errors import DataError
from xformer.runs.storage import write_atomically

FILE = "summary.json"
NOT_ENDED = "It was killed, or is still running."
_SHOWN, _LONGEST_INTEGER = 40, 19
_OLD_KEYS = {
    "by_hand": "target_overrides",
    "floor_of": "baseline_metric",
    "floors": "trivial_baselines",
    "inherited": "warm_start",
    "without_effect": "ignored_keys",
}
"""Names of attributes in the files of earlier versions."""


@dataclass
class MonitoredMetric:
    """The metric that picks the best checkpoint, its best value and the optimiser step of that value."""

    name: str
    mode: Literal["min", "max"]
    best: float | None = None
    step: int | None = None


@dataclass
class TuningRole:
    """What a run is in the tuning of its study.

    Attributes:
        keys: The settings that are tuned.
        metric: The validation metric that they are chosen by.
        trial: Whether the run is a trial; a trial is not tested.
    """

    keys: list[str]
    metric: str
    trial: bool


@dataclass
class Summary:
    """The record of a run that `compare` and `reproduce` read; unknown values, NaN and infinities are None.

    Attributes:
        status: How the run ended: `running` until it ends, and still after it was killed; `interrupted` by a signal to
            stop; `skipped` for a combination refused in a sweep.
        error: One sentence if it did not finish.
        choices: Config group to option.
        overrides: The command line as typed, without secrets.
        started_in: The working directory, to which paths in the configuration are relative.
        seed: The seed of initialisation and data order.
        metrics: Final values by name as logged, `val/loss` or `test/accuracy`.
        monitor: The metric that picked the best checkpoint.
        trivial_baselines: The values of trivial baselines by name (chance, the unigram loss).
        baseline_metric: The metric that the trivial baselines are measured in.
        parameters: Trainable parameters.
        flops_per_token: FLOPs of one training step per token, forward and backward.
        tokens_seen: Tokens trained on, padding excluded, over all processes.
        tokens_per_second: Steady training speed over all processes.
        peak_memory_bytes: Peak memory of this run, in bytes.
        wall_seconds: Seconds from the start of the run to its end, excluding pauses and work that a resumption repeats.
        git: The commit, and whether the tree was dirty.
        versions: Package versions.
        hardware: The machine.
        data_fingerprint: Hash of the data as read.
        attention: Attention slot to option.
        warm_start: Weights loaded from another run (`init_from`): that run, a short hash of its configuration, the
            number of tensors, and those not loaded.
        matched: The dimension that `match` adjusted: from, to, and the remaining difference in percent.
        target_overrides: By key, the `_target_`s that replace an option's own.
        ignored_keys: Keys that cannot change the result, as the callbacks declare; None in runs of earlier versions.
        diverged: Whether it failed because its loss or its parameters became NaN or infinite.
        tuning: The role of the run in the tuning of its study; None where that tunes nothing.
        plugins: Packages that added options or classes (`xformer.config.plugins`): version, commit, and whether the
            tree was dirty.
    """

    status: Literal["running", "finished", "interrupted", "failed", "skipped"]
    error: str | None = None
    choices: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    started_in: str | None = None
    seed: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    monitor: MonitoredMetric | None = None
    trivial_baselines: dict[str, float | None] = field(default_factory=dict)
    baseline_metric: str | None = None
    parameters: int | None = None
    flops_per_token: float | None = None
    tokens_seen: int | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    wall_seconds: float | None = None
    git: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str | None = None
    attention: dict[str, str] = field(default_factory=dict)
    warm_start: dict[str, Any] | None = None
    matched: dict[str, Any] | None = None
    target_overrides: dict[str, str] = field(default_factory=dict)
    ignored_keys: list[str] | None = None
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    diverged: bool = False
    tuning: TuningRole | None = None

    @property
    def is_trial(self) -> bool:
        """Whether the run is a trial of a study's tuning."""
        return self.tuning is not None and self.tuning.trial


def summary_from_json(content: Any) -> Summary:
    """A summary from the mapping in its file; unknown keys are ignored.

    Raises:
        ValueError: a value is missing or of the wrong type, in one line.
    """
    try:
        named = strict_json(content)
        if isinstance(named, dict):
            named = {_OLD_KEYS.get(key, key): value for key, value in named.items()}
        summary: Summary = _typed().validate_json(json.dumps(named), strict=True)
        summary.overrides = new_overrides(summary.overrides, summary.choices)
        if summary.tuning is not None:
            summary.tuning.keys = [new_key(key, summary.choices) for key in summary.tuning.keys]
        return summary
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        reason = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise ValueError(f"{place} is {str(first['input'])[:_SHOWN]!r}: {' '.join(reason.split())}") from error


@functools.cache
def _typed() -> Any:
    """The types of a summary's values, as its attributes declare them."""
    return TypeAdapter(Summary)


def parse_integer(digits: str) -> int | float:
    """An integer, or a float if the number is too large for a counter."""
    return int(digits) if len(digits) < _LONGEST_INTEGER else float(digits)


def write_summary(directory: Path, summary: Summary) -> Path:
    """Write `summary.json` into a run directory, atomically replacing an older one.

    Returns:
        The file's path.
    """
    text = json.dumps(summary_as_json(summary), indent=2, allow_nan=False) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / FILE, text)
    return directory / FILE


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """A summary as strict JSON without secrets."""
    content: dict[str, Any] = redact(strict_json(asdict(summary)))
    return content


def strict_json(value: Any) -> Any:
    """Convert a value to strict JSON: numbers and strings, with None for non-finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a scalar tensor or a NumPy number
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def plugin_line(state: Mapping[str, Any] | None) -> str:
    """Format the state of a plugin: `0.1.0 at 3fa2c1d05e with changes`."""
    if state is None:
        return "not used"
    commit = f" at {state['commit'][:10]}" if state.get("commit") else ""
    return f"{state.get('version') or 'no version'}{commit}{' with changes' if state.get('dirty') else ''}"


def read_summary(directory: Path) -> Summary:
    """Read a run directory's summary; unknown keys are ignored.

    Raises:
        DataError: The summary is missing or malformed.
    """
    path = directory / FILE
    try:
        summary = summary_from_json(json.loads(path.read_text(encoding="utf-8"), parse_int=parse_integer))
    except FileNotFoundError:
        raise DataError(f"{directory} has no {FILE}: it is not a run directory, or the run was killed.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a run's summary: {error}.") from error
    if summary.status == "running":
        summary.error = NOT_ENDED
    return summary

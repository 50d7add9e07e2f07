"""The metric of a comparison, its direction and its range."""

from collections.abc import Sequence
from dataclasses import dataclass

from xformer.config.groups import nearest
from xformer.errors import ConfigError
from xformer.runs.recorded_run import RecordedRun
from xformer.studies.bounded import FRACTION, NON_NEGATIVE, PERCENTAGE, UNBOUNDED, Bounds
from xformer.studies.statistics import Mode

_LESS_IS_BETTER = ("loss", "perplexity", "error", "bits", "nats")
_FRACTIONS = ("accuracy", "f1", "precision", "recall", "exact")
_PERCENTAGES = ("bleu", "chrf")


@dataclass(frozen=True)
class Metric:
    """A metric: its name as logged, and whether higher or lower is better."""

    name: str
    mode: Mode

    @classmethod
    def of(cls, runs: Sequence[RecordedRun], name: str | None) -> "Metric":
        """The requested metric, else the monitored one on the test part, or on the validation part without a test part.

        The monitored metric has the direction of its monitor. For others lower is better if the name contains loss,
        perplexity, error, bits or nats.

        Raises:
            ConfigError: no run has that metric, or the runs monitor different metrics.
        """
        known = dict.fromkeys(metric for run in runs for metric in run.summary.metrics)
        monitors = {(m.name, m.mode): None for run in runs if (m := run.summary.monitor)}
        if name is None:
            watched = {monitor.partition("/")[2] for monitor, _ in monitors}
            if len(watched) != 1:
                raise ConfigError(
                    f"The runs monitor different metrics; choose one with --metric: {', '.join(known)}."
                    if watched
                    else "No run has recorded a metric: there is nothing to compare."
                )
            stem = watched.pop()
            name = next((metric for metric in (f"test/{stem}", f"val/{stem}") if metric in known), f"val/{stem}")
        elif name not in known:
            raise ConfigError(f"--metric {name} is in no run; {nearest(name, known)}")
        return cls(name, _mode(name, {mode for monitor, mode in monitors if _stem(monitor) == _stem(name)}))


def metric_bounds(name: str) -> Bounds:
    """The range of a metric, inferred from its name, such as that of a fraction, a percentage or a loss.

    Values outside the range are allowed: `bounded_interval` then treats the metric as unbounded.
    """
    stem = _stem(name)
    for words, bounds in ((_FRACTIONS, FRACTION), (_PERCENTAGES, PERCENTAGE), (_LESS_IS_BETTER, NON_NEGATIVE)):
        if any(word in stem for word in words):
            return bounds
    return UNBOUNDED


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition("@")[0]


def _mode(name: str, monitored: set[Mode]) -> Mode:
    if len(monitored) == 1:
        return monitored.pop()
    return "min" if any(word in _stem(name) for word in _LESS_IS_BETTER) else "max"

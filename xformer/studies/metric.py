"""Which number is compared, and which way is better."""

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
    """A metric: its name as logged, and whether more or less of it is better."""

    name: str
    mode: Mode

    @classmethod
    def of(cls, runs: Sequence[RecordedRun], name: str | None) -> "Metric":
        """The metric asked for, or the monitored one on the test part, on the validation part where there is no test.

        The direction is the monitor's where its metric is meant; else less is better for what is called a loss, a
        perplexity, an error, bits or nats.

        Raises:
            ConfigError: no run has that metric, or the runs do not agree on one.
        """
        known = dict.fromkeys(metric for run in runs for metric in run.summary.metrics)
        monitors = {(m.name, m.mode): None for run in runs if (m := run.summary.monitor)}
        if name is None:
            watched = {monitor.partition("/")[2] for monitor, _ in monitors}
            if len(watched) != 1:
                raise ConfigError(
                    f"The runs do not agree on a metric; choose one with --metric: {', '.join(known)}."
                    if watched
                    else "No run got as far as a metric: there is nothing to compare."
                )
            stem = watched.pop()
            name = next((metric for metric in (f"test/{stem}", f"val/{stem}") if metric in known), f"val/{stem}")
        elif name not in known:
            raise ConfigError(f"--metric {name} is in no run; {nearest(name, known)}")
        return cls(name, _mode(name, {mode for monitor, mode in monitors if _stem(monitor) == _stem(name)}))


def metric_bounds(name: str) -> Bounds:
    """The range of a metric, by its name: that of a fraction, a percentage, a loss and the like, or none.

    Values outside it are no error: `bounded_interval` then takes the metric to have no bounds.
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

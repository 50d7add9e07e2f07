"""How to run more seeds of a study, and what it does to the error rate."""

import itertools
from collections.abc import Sequence

from xformer.errors import DataError
from xformer.studies.comparison import Comparison
from xformer.studies.looks import undeclared_error
from xformer.studies.study import Study

_MOST = 20  # seeds that are proposed at once


def more_seeds(study: Study, comparison: Comparison, number: int | None = None) -> list[str]:
    """The command for more seeds, and a sentence for each thing that is to be known before it is run.

    Args:
        study: whose runs are compared.
        comparison: of its runs up to now.
        number: how many; None for the next declared look, else for as many as show the largest need of those
            differences that are not shown, at most 20.

    Raises:
        DataError: nothing says how many, or the runs have no seeds.
    """
    seeds = sorted({seed for row in comparison.rows for seed in row.values if seed is not None})
    if not seeds:
        raise DataError(f"The runs of {study.name} have no seeds that could be continued.")
    now = max(len(row.values) for row in comparison.rows)
    coming = [look for look in comparison.plan.looks if look > now]
    if number is None:
        number = coming[0] - now if coming else _needed(comparison)
    tuning_seeds = study.tune.seeds if study.tune else ()
    free = (seed for seed in itertools.count(seeds[-1] + 1) if seed not in tuning_seeds)
    further = ",".join(str(seed) for seed in itertools.islice(free, number))
    command = f"{study.command} seed={further}"
    return [command, *_error_rate(study, comparison, now, now + number, further)]


def _needed(comparison: Comparison) -> int:
    tests = [row.test for row in comparison.rows if row.test and row.verdict == "no difference shown"]
    needs = [(test.seeds or _MOST + test.difference.pairs) - test.difference.pairs for test in tests]
    if not needs:
        raise DataError("No difference is left to be shown: say how many seeds to add, such as --add-seeds 3.")
    return min(_MOST, max(needs))


def _error_rate(study: Study, comparison: Comparison, now: int, then: int, further: str) -> Sequence[str]:
    """What another look does to the chance to call equal settings different."""
    looks = comparison.plan.looks
    if then in looks:
        declared = ", ".join(map(str, looks))
        return [f"A look is declared at {then} seeds ({declared}): over all looks the error rate stays 5 %."]
    rate = 100 * undeclared_error([now, then])
    found = [
        f"If all {then} seeds are compared because {now} did not show enough, equal settings are called different in "
        f"{rate:.1f} of 100 cases instead of 5, and in more with every further look.",
        f"It stays 5 if the new seeds alone are compared: xformer compare {study.name} --seeds {further}.",
    ]
    if looks:
        declared = ", ".join(map(str, looks))
        found.append(f"study.looks ({declared}) does not have {then} seeds: what comes after a look is not compared.")
    else:
        found.append(
            f"Or if the looks of a study are declared before its first run: study.looks: [{now}, {then}] in its file."
        )
    return found

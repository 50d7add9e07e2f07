"""The command that runs more seeds of a study, and its effect on the error rate."""

import itertools
from collections.abc import Sequence

from xformer.core.program import with_plugins
from xformer.errors import DataError
from xformer.studies.comparison import Comparison
from xformer.studies.looks import undeclared_error
from xformer.studies.study import Study

_MOST = 20  # the maximum number of seeds to propose


def more_seeds(study: Study, comparison: Comparison, number: int | None = None) -> list[str]:
    """The command for more seeds, and sentences on how they affect the error rate.

    Args:
        study: the study to extend.
        comparison: the comparison of its runs so far.
        number: how many seeds to add. None for as many as the next declared look needs, else the largest number that
            a difference not yet shown needs, at most 20.

    Raises:
        DataError: the number is neither passed nor implied, or the runs have no seeds.
    """
    seeds = sorted({seed for row in comparison.rows for seed in row.values if seed is not None})
    if not seeds:
        raise DataError(f"The runs of {study.name} have no seeds to continue from.")
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
        raise DataError("All differences are shown already; name the number of seeds to add, such as --add-seeds 3.")
    return min(_MOST, max(needs))


def _error_rate(study: Study, comparison: Comparison, now: int, then: int, further: str) -> Sequence[str]:
    """The effect of another look on the probability of calling equal settings different."""
    looks = comparison.plan.looks
    if then in looks:
        declared = ", ".join(map(str, looks))
        return [f"A look is declared at {then} seeds ({declared}): the error rate over all looks stays 5 %."]
    rate = 100 * undeclared_error([now, then])
    found = [
        f"If all {then} seeds are compared because {now} did not show enough, equal settings are called different in "
        f"{rate:.1f} of 100 cases instead of 5, and in more with every further look.",
        "It stays 5 if only the new seeds are compared: "
        f"{with_plugins('xformer compare')} {study.name} --seeds {further}.",
    ]
    if looks:
        declared = ", ".join(map(str, looks))
        found.append(f"study.looks ({declared}) has no look at {then} seeds: seeds after a look are not compared.")
    else:
        found.append(
            f"So it does if a study declares its looks before its first run: study.looks: [{now}, {then}] in its file."
        )
    return found

"""Measure every contract of a module, and shrink failures to the smallest input that shows them."""

import io
import itertools
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version

import torch

from xformer.audit import dependence, determinism, padding, stepping
from xformer.audit.card import Card, Finding
from xformer.audit.evidence import Evidence, Measure, Unmeasurable, smallest
from xformer.audit.growth import costs, states
from xformer.audit.numbers import EXTREMES, extreme, precision, roundings, sizes
from xformer.audit.subject import LENGTHS, Subject, generators_kept
from xformer.audit.target import one_line

SHORT, MIDDLE, LONG = 9, 65, 257
FEW_SEEDS = 3
_PATIENCE = 20.0


def examine(subject: Subject, *, seeds: int = FEW_SEEDS, longest: int = 2048, timed: bool = True) -> Card:
    """Audit a module and return its card.

    Args:
        subject: the module, and how it is called.
        seeds: the number of draws of weights and inputs.
        longest: the length up to which to measure time and memory; 0 to skip them.
        timed: whether to measure time, which needs an otherwise idle machine.
    """
    with quietly(), generators_kept():
        findings = list(_findings(subject, seeds))
        by_length: dict[str, dict[int, float]] = {}
        grown: dict[str, str] = {}
        if longest:
            seconds, memory = costs(subject, longest, rounds=5 if timed else 0)
            if timed:
                grown["time of a forward pass"], by_length["seconds"] = str(seconds), seconds.values
            grown["memory of a training pass"], by_length["bytes"] = str(memory), memory.values
        if subject.at(0).steps:
            try:
                held = states(subject)
                grown["decoding state"] = f"{held} bytes a row, with tokens"
                by_length["state bytes"] = held.values
            except Exception as error:
                grown["decoding state"] = f"cannot be measured ({one_line(error)})"
        errors = precision(subject, subject.nearest(64), seeds)
        target = subject.target
        return Card(
            name=target.path,
            versions=_versions(target.package),
            arguments={**target.config_arguments, **target.arguments},
            guessed=target.guessed,
            called=subject.calling.describe(),
            dtype=str(subject.dtype).removeprefix("torch."),
            seeds=seeds,
            lengths=_lengths(subject.lengths),
            findings=tuple(findings),
            reach=_reach(subject),
            precision=errors,
            roundings=roundings(errors),
            costs=grown,
            by_length=by_length,
            sizes=sizes(subject),
        )


def _findings(subject: Subject, seeds: int) -> Iterator[Finding]:
    judge = partial(_judge, subject, seeds)
    future, rows = dependence.future, dependence.other_rows
    if all(dependence.responds(subject, subject.nearest(SHORT), 2, seed).fails for seed in range(seeds)):
        for contract in ("causal", "padding-right", "padding-left", "rows", "batch-size"):
            yield Finding(contract, "untested", "the outputs do not depend on the inputs at all")
        return
    long = (SHORT, MIDDLE, LONG)
    causal = judge(
        "causal",
        [future, partial(future, train=True)],
        long,
        (1,),
        "zero derivative with respect to every later token, and no change with it",
    )
    yield causal
    yield _padding(subject, seeds, "right")
    yield _padding(subject, seeds, "left")
    gradients: list[Measure] = [partial(padding.gradient, side="right"), partial(padding.gradient, side="left")]
    if subject.calling.mask is None and subject.calling.function is None:
        yield Finding("padding-gradient", "untested", "no argument takes padding")
    else:
        yield judge("padding-gradient", gradients, (SHORT,), (1, 3), "finite, with padding on both sides")
    zero = "zero derivative with respect to other rows"
    yield judge("rows", [rows], (SHORT, MIDDLE), (2, 3), f"{zero}, and no change with them")
    yield judge("rows-train", [partial(rows, train=True)], (SHORT,), (2, 3), zero)
    yield judge("batch-size", [dependence.batch_size], (SHORT, MIDDLE), (1, 2, 5), "equal to rounding")
    same: list[Measure] = [determinism.repeats, determinism.keeps_itself]
    yield judge("deterministic", same, (SHORT,), (1, 2), "the same bits twice, and the module is unchanged")
    repeats = partial(determinism.repeats, train=True, seeded=True)
    drawn = determinism.repeats(subject, subject.nearest(SHORT), 2, 0, train=True).fails
    detail = f"the same bits{' with the same seed, others with another' if drawn else ', also with another seed'}"
    yield judge("reproducible", [repeats], (SHORT,), (1, 2), detail)
    yield _step(subject, seeds, causal)
    extremes: list[Measure] = [partial(extreme, kind=kind) for kind in EXTREMES]
    yield judge("finite", extremes, (SHORT, MIDDLE, LONG), (1, 2), f"in float32 with {', '.join(EXTREMES)}")


def _judge(
    subject: Subject,
    seeds: int,
    contract: str,
    measures: Sequence[Measure],
    lengths: Sequence[int],
    batches: tuple[int, ...],
    holds: str,
) -> Finding:
    """The first measure that fails, shrunk; else the largest error found.

    A length is skipped if the time of the previous one shows that it would take too long.
    """
    worst: Evidence | None = None
    tried: list[int] = []
    took = 0.0
    for length in sorted({subject.nearest(n) for n in lengths}):
        if tried and took * length / tried[-1] > _PATIENCE:
            break
        began = time.perf_counter()
        for measure, batch, seed in itertools.product(measures, sorted({batches[0], batches[-1]}), range(seeds)):
            try:
                found = measure(subject, length, batch, seed)
            except Unmeasurable:
                continue
            except Exception as error:
                stopped = f"it fails at length {length} with batch {batch} ({one_line(error)})"
                return Finding(contract, "untested", stopped)
            if found.fails:
                sizes = tuple(size for size in batches if size <= batch)
                at = smallest(measure, subject, length, sizes, max(seeds, seed + 1))
                return _failed(subject, contract, measure, at)
            if worst is None or found.error > worst.error:
                worst = found
        tried.append(length)
        took = time.perf_counter() - began
    if worst is None:
        return Finding(contract, "untested", "this needs a module that accepts two lengths")
    return Finding(contract, "yes", f"{holds} (length {', '.join(map(str, tried))})", worst.error, worst.tolerance)


def _failed(subject: Subject, contract: str, measure: Measure, at: tuple[int, int, int]) -> Finding:
    length, batch, seed = at
    found = measure(subject, length, batch, seed)
    train = bool(getattr(measure, "keywords", {}).get("train"))
    by = "a value that is not finite" if found.error == float("inf") else f"{found.error:.2g} of the largest"
    detail = f"{found.says}, by {by} (length {length}, batch {batch}, seed {seed}{', train mode' if train else ''})"
    snippet = "\n".join([*subject.source(seed, train=train), *found.lines, "print(error)"]) + "\n"
    if contract in ("deterministic", "reproducible"):
        snippet = snippet.replace("    torch.manual_seed(0)\n", "")
    return Finding(contract, "no", detail, found.error, found.tolerance, snippet)


def _padding(subject: Subject, seeds: int, side: padding.Side) -> Finding:
    """Test that neither the content of padding nor its presence changes the other outputs."""
    contract = f"padding-{side}"
    takes = subject.calling.function is not None or subject.calling.mask is not None
    inert = _judge(subject, seeds, contract, [partial(padding.content, side=side)], (SHORT, MIDDLE), (1, 2, 3), "")
    equal = _judge(subject, seeds, contract, [partial(padding.alone, side=side)], (SHORT, MIDDLE), (1, 2, 3), "")
    remark = "" if takes else " (no argument takes padding)"
    if inert.verdict == "yes" and equal.verdict == "no":
        detail = f"its content changes nothing, but {equal.detail}{remark}"
        return Finding(contract, "no", detail, equal.error, equal.tolerance, equal.snippet)
    worse = next((f for f in (inert, equal) if f.verdict != "yes"), None)
    if worse is not None:
        return Finding(contract, worse.verdict, worse.detail + remark, worse.error, worse.tolerance, worse.snippet)
    errors = [f.error for f in (inert, equal) if f.error is not None]
    detail = f"its content changes nothing, and outputs equal those without padding{remark}"
    return Finding(contract, "yes", detail, max(errors), (equal if equal.verdict == "yes" else inert).tolerance)


def _step(subject: Subject, seeds: int, causal: Finding) -> Finding:
    if causal.verdict == "no":
        return Finding("step", "untested", "it reads later tokens, so it cannot run token by token")
    if not subject.at(0).steps:
        return Finding("step", "untested", "no argument or method takes a state")
    found = _judge(subject, seeds, "step", [stepping.stepping], (SHORT, MIDDLE), (1, 2), "from the first token on")
    if found.verdict != "yes":
        return found
    prompt = _judge(subject, seeds, "step", [partial(stepping.stepping, prompt=True)], (SHORT, MIDDLE), (1, 2), "")
    if prompt.verdict == "untested":
        return Finding(
            "step", "yes", f"from the first token on; after a prompt {prompt.detail}", found.error, found.tolerance
        )
    if prompt.verdict == "no":
        return Finding("step", "no", f"after a prompt {prompt.detail}", prompt.error, prompt.tolerance, prompt.snippet)
    return Finding("step", "yes", "from the first token on, and after a prompt", found.error, found.tolerance)


def _reach(subject: Subject) -> str:
    length = subject.nearest(LONG)
    try:
        back, ahead, clearly, clearly_ahead = dependence.reach(subject, length, 0)
    except Exception as error:
        return f"not measured ({one_line(error)})"

    def side(name: str, farthest: int, above: int) -> str:
        if farthest == 0:
            return f"nothing {name}"
        words = f"all {name}" if farthest == length - 1 else f"{farthest} tokens {name}"
        return words if above == farthest else f"{words}, above rounding {above}"

    return f"{side('before', back, clearly)}; {side('after', ahead, clearly_ahead)} (of {length} tokens)"


def _lengths(lengths: Sequence[int]) -> str:
    if lengths == LENGTHS:
        return f"it accepts every length tried, up to {LENGTHS[-1]}"
    if len(lengths) == 1:
        return f"it accepts only the length {lengths[0]}"
    return f"of the lengths tried it accepts {', '.join(map(str, lengths))}"


def _versions(package: str) -> dict[str, str]:
    found = {}
    for name in packages_distributions().get(package, [package])[:1]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "(no version)"
    return {**found, "torch": torch.__version__, "Python": platform.python_version()}


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress prints, logs and warnings of the audited code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

"""Beam search: an approximate search for the sequences of highest probability.

A hypothesis y of n tokens, its end token included, has the score

    score(y) = sum_t log p(y_t | y_<t, x) / n^length_penalty

(Hugging Face's form; 0 compares probabilities, which favours short texts, and 1 compares means per token). At every
step the best `2 beams` continuations of all beams are candidates: those among the first `beams` that end become
finished hypotheses, of which the best `beams` are kept, and the best `beams` others continue. At the last step all
hypotheses end. p is the distribution after the logits processors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.errors import ConfigError
from xformer.generation.logits_processors import LogitsProcessor
from xformer.generation.prefixes import Prefixes


class Hypotheses(NamedTuple):
    """The best hypotheses of each prompt, best first."""

    tokens: Int[Tensor, "prompts beams new"]
    """The generated tokens, with the end token, which also fills the rest of a row."""
    lengths: Int[Tensor, "prompts beams"]
    """Generated tokens, including the end token; 0 if the vocabulary allows no further hypothesis."""
    scores: Float[Tensor, "prompts beams"]
    """The sum of log-probabilities over length^length_penalty; -inf without a hypothesis."""

    def better(self, others: "Hypotheses") -> "Hypotheses":
        """The best of these and other hypotheses, as many as there are here."""
        tokens, lengths, scores = (torch.cat(pair, dim=1) for pair in zip(self, others, strict=True))
        scores, best = scores.topk(self.scores.shape[1], dim=1)
        return Hypotheses(_pick(tokens, best), lengths.gather(1, best), scores)


class _Candidates(NamedTuple):
    parents: Int[Tensor, "prompts candidates"]
    tokens: Int[Tensor, "prompts candidates"]
    sums: Float[Tensor, "prompts candidates"]


@torch.inference_mode()
def beam_search(
    prefixes: Prefixes,
    *,
    beams: int,
    end: int | None,
    length_penalty: float = 1.0,
    early_stop: bool = False,
    logits_processors: Sequence[LogitsProcessor] = (),
) -> Hypotheses:
    """Search from each prompt; a prompt's result does not depend on the others.

    Args:
        prefixes: one row per prompt, with nothing generated yet.
        beams: the number of hypotheses to keep, and to return.
        end: the token that ends a hypothesis; None if all hypotheses have the maximum length.
        length_penalty: the exponent of the length.
        early_stop: stop at `beams` finished hypotheses; otherwise when no running hypothesis can still beat the worst
            of them. One beam always stops at its first, as greedy decoding does.
        logits_processors: applied to the logits.

    Raises:
        ConfigError: `beams` is below 1.
    """
    if beams < 1:
        raise ConfigError(f"beams={beams} is out of range; use 1 or more.")
    prompts, steps = len(prefixes.tokens), prefixes.max_new
    logits = _processed_logits(prefixes, logits_processors)
    device = logits.device
    rows = torch.arange(prompts, device=device)[:, None]
    prefixes.reorder(rows.expand(-1, beams).flatten())
    logits = logits.repeat_interleave(beams, dim=0)
    sums = _log_probabilities(logits).new_full((prompts, beams), float("-inf"))
    sums[:, 0] = 0  # all beams are alike: one of them goes on
    finished = _none(prompts, beams, steps, 0 if end is None else end, sums)
    done = torch.zeros(prompts, 1, dtype=torch.bool, device=device)
    for step in range(1, steps + 1):
        found = _candidates(sums, _log_probabilities(logits), beams)
        ended = found.tokens == end if end is not None else torch.zeros_like(found.tokens, dtype=torch.bool)
        if step == steps:
            ended = torch.ones_like(ended)
        scores = found.sums / step**length_penalty
        scores = scores.masked_fill(~ended | done, float("-inf"))[:, :beams]
        written = _written(prefixes, found, finished)[:, :beams]
        finished = finished.better(Hypotheses(written, torch.full_like(found.tokens[:, :beams], step), scores))
        if step == steps:
            break
        sums, kept = found.sums.masked_fill(ended, float("-inf")).topk(beams, dim=1)
        done = done | _settled(finished.scores, sums, step, steps, length_penalty, early_stop)
        if bool(done.all()):
            break
        prefixes.reorder((rows * beams + found.parents.gather(1, kept)).flatten())
        prefixes.append(found.tokens.gather(1, kept).flatten())
        logits = _processed_logits(prefixes, logits_processors)
    return finished._replace(lengths=finished.lengths.masked_fill(finished.scores == float("-inf"), 0))


def _processed_logits(prefixes: Prefixes, logits_processors: Sequence[LogitsProcessor]) -> Tensor:
    logits = prefixes.logits()
    for change in logits_processors:
        logits = change(logits, prefixes)
    return logits


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _none(prompts: int, beams: int, steps: int, filler: int, like: Tensor) -> Hypotheses:
    """Empty buffers for finished hypotheses."""
    tokens = torch.full((prompts, beams, steps), filler, device=like.device)
    return Hypotheses(tokens, tokens.new_zeros(prompts, beams), torch.full_like(like, float("-inf")))


def _candidates(
    sums: Float[Tensor, "prompts beams"], log_probabilities: Float[Tensor, "rows vocabulary"], beams: int
) -> _Candidates:
    """The best continuations by one token, best first; twice as many as beams, because any of them may end a beam."""
    vocabulary = log_probabilities.shape[-1]
    every = (sums.flatten()[:, None] + log_probabilities).view(len(sums), -1)
    best, indices = every.topk(min(2 * beams, every.shape[1]), dim=1)
    return _Candidates(indices // vocabulary, indices % vocabulary, best)


def _written(prefixes: Prefixes, found: _Candidates, finished: Hypotheses) -> Int[Tensor, "prompts candidates new"]:
    """The generated tokens of each candidate, padded to the length of a finished hypothesis."""
    prompts, beams, steps = finished.tokens.shape
    before = _pick(prefixes.written.view(prompts, beams, -1), found.parents)
    # Kept candidates end here: their last token is the end token and fills the rest, or no rest is left.
    last = found.tokens[..., None].expand(-1, -1, steps - before.shape[2])
    return torch.cat((before, last), dim=2)


def _settled(
    finished: Float[Tensor, "prompts beams"],
    running: Float[Tensor, "prompts beams"],
    step: int,
    steps: int,
    length_penalty: float,
    early_stop: bool,
) -> Bool[Tensor, "prompts 1"]:
    """Whether a prompt needs no further search."""
    worst = finished[:, -1:]
    if early_stop or running.shape[1] == 1:
        return worst > float("-inf")
    # A sum never rises. If length is rewarded, the best case is an unchanged sum at the maximum length.
    reach = steps if length_penalty > 0 else step + 1
    best: Tensor = running[:, :1] / reach**length_penalty
    return worst >= best


def _pick(of: Tensor, which: Int[Tensor, "prompts some"]) -> Tensor:
    """Select entries of the second dimension for each entry of the first."""
    return of.gather(1, which[..., None].expand(-1, -1, of.shape[-1]))

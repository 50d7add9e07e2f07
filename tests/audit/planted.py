"""Attention that is right, and the same with one fault planted in it: what an audit has to find, and nothing else."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class Right(nn.Module):
    """Softmax attention with a mask of padding (True = keep) and a cache of keys and values."""

    def __init__(self, dim: int = 16, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: tuple[Tensor, Tensor] | None = None,
        return_cache: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        query, key, value = self.query(x), self.key(x), self.value(x)
        if cache is not None:
            key, value = torch.cat([cache[0], key], 1), torch.cat([cache[1], value], 1)
        scores = self.scores(query, key)
        if self.causal:
            scores = scores.masked_fill(~self.allowed(query.shape[1], key.shape[1]), -torch.inf)
        y = self.out(self.mix(self.hide(scores, mask), value, mask))
        return (y, (key, value)) if return_cache else y

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])

    def allowed(self, queries: int, keys: int) -> Tensor:
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return scores if mask is None else scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return scores.softmax(-1) @ value


class Both(Right):
    """The same in both directions."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__(dim, causal=False)


class NextToken(Right):
    """Future: the mask is off by one."""

    def allowed(self, queries: int, keys: int) -> Tensor:
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries + 1)


class FarFuture(Right):
    """Future, at more than 40 tokens alone."""

    def allowed(self, queries: int, keys: int) -> Tensor:
        allowed = super().allowed(queries, keys).clone()
        allowed[:, 40:] |= torch.arange(keys)[40:] == keys - 1
        return allowed


class DetachedMaximum(Right):
    """Future, where no derivative shows it: weights with a maximum over all keys and an epsilon, as Performer's."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        highest = scores.masked_fill(scores.isinf(), 0.0).detach().amax((1, 2), keepdim=True)
        weights = (scores - highest).exp() + 1e-4 * (~scores.isinf())
        return weights / weights.sum(-1, keepdim=True) @ value


class ChosenByTheFuture(Right):
    """Future, where no derivative shows it: the most similar token of the whole sequence is marked."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        best = value.square().sum(-1).argmax(-1)
        marked = (torch.arange(value.shape[1]) == best[:, None])[..., None].to(value.dtype)
        return super().mix(scores, value, mask) + marked


class FutureInTraining(Right):
    """Future, in train mode alone."""

    def allowed(self, queries: int, keys: int) -> Tensor:
        return super().allowed(queries, keys) | self.training


class Unmasked(Both):
    """Padding: the mask is ignored."""

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return scores


class UnmaskedCausal(Right):
    """Padding on the left: the mask is ignored, which causality makes up for on the right alone."""

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return scores


class ValuesAlone(Both):
    """Padding: values are zero at it, but its weight stays in the denominator."""

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return scores

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return super().mix(scores, value if mask is None else value * mask[..., None], mask)


class CountsPadding(Both):
    """Padding, whose content changes nothing and whose number does: a mean over all tokens is added."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        kept = value if mask is None else value * mask[..., None]
        return super().mix(scores, value, mask) + kept.mean(1, keepdim=True)


class MaskOfBatchesAlone(Both):
    """Padding, with a batch of one alone, where the mask is skipped."""

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return super().hide(scores, mask if len(scores) > 1 else None)


class NoNumbers(Right):
    """Gradients: a query that may read nothing has no number, nor have the gradients of all others."""

    def hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        return scores if mask is None else scores.masked_fill(~mask[:, None], -torch.inf)


class BatchMean(Right):
    """Batch: the mean of all rows is taken off."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return super().mix(scores, value - value.mean(0, keepdim=True), mask)


class BatchNorm(Right):
    """Batch, in train mode alone."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__(dim)
        self.norm = nn.BatchNorm1d(dim)

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return super().mix(scores, self.norm(value.transpose(1, 2)).transpose(1, 2), mask)


class DropsInEval(Right):
    """Not deterministic: dropout stays on."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return super().mix(scores, dropout(value, 0.5, training=True), mask)


class Counter(Right):
    """Not deterministic: each call is another one."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__(dim)
        self.register_buffer("calls", torch.zeros(()))

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        self.calls += 1
        return super().mix(scores, value, mask) * (1 + self.calls)


class FreshGenerator(Right):
    """Not reproducible: in train mode it draws from a generator that no seed reaches."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        noise = np.random.default_rng().standard_normal() if self.training else 0.0
        return super().mix(scores, value, mask) + noise


class ForgetsTheScale(Right):
    """Step: with a cache the scores are not scaled."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return super().scores(query, key) * (math.sqrt(query.shape[-1]) if query.shape[1] < key.shape[1] else 1.0)


class ForgetsTheOldest(Right):
    """Step: the cache holds eight tokens, and the whole sees all."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: tuple[Tensor, Tensor] | None = None,
        return_cache: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        cache = None if cache is None else (cache[0][:, -7:], cache[1][:, -7:])
        return super().forward(x, mask, cache, return_cache)


class Overflows(Right):
    """Not finite: weights are exponentials without a maximum."""

    def mix(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        weights = scores.exp()
        return weights / weights.sum(-1, keepdim=True) @ value


class Constant(nn.Module):
    """Says nothing of its input."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x + self.weight


class Window(nn.Module):
    """A mean over the last `window` tokens and the next `ahead`."""

    def __init__(self, dim: int = 16, window: int = 3, ahead: int = 0) -> None:
        super().__init__()
        self.window, self.ahead = window, ahead
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        distance = torch.arange(x.shape[1]) - torch.arange(x.shape[1])[:, None]
        near = ((distance <= self.ahead) & (distance > -self.window)).to(x.dtype)
        return near / near.sum(-1, keepdim=True) @ self.linear(x)


class Inside32(Window):
    """Computes in float32 whatever it is passed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float().tanh().to(x.dtype)


class LengthFirst(nn.Module):
    """(length, batch, width), with a mask (batch, length) whose True is to be ignored, against its name."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.attention = Both(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        y = self.attention(x.transpose(0, 1), None if mask is None else ~mask)
        return {"weights": y.new_zeros(()), "hidden": y.transpose(0, 1)}


class Eights(Right):
    """Takes lengths that eight divides."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        assert x.shape[1] % 8 == 0, "the length is not divisible by 8"
        return super().forward(x, mask)  # type: ignore[return-value]


class Recurrent(nn.Module):
    """A decaying sum, with a method for a token: the step of Mamba's interface."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = self.init_state(len(x), x.dtype), []
        for token in x.unbind(1):
            y, state = self.step(token, state)
            outputs.append(y)
        return torch.stack(outputs, 1)

    def init_state(self, batch: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(batch, self.linear.out_features, dtype=dtype)

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.9 * state + self.linear(token)
        return state.tanh(), state


class NeedsMemory(nn.Module):
    """Cannot be called with x alone."""

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return x + memory


def cross(module: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """How that can be called."""
    return module(x, torch.zeros_like(x))


def one_number(module: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """No way to call a mixer."""
    return x.sum()


class ExitsWhenBuilt(nn.Module):
    """Ends the process where it is built."""

    def __init__(self) -> None:
        raise SystemExit(7)


class ExitsWhenCalled(Right):
    """Ends the process where it is called with more tokens than it has room for."""

    room = 16

    def forward(self, x: Tensor, *passed: Any, **named: Any) -> Any:
        if x.shape[1] > self.room:
            raise SystemExit(7)
        return super().forward(x, *passed, **named)


class OverflowsOverLong(nn.Module):
    """A sum of large numbers, which overflows in float32 after some dozens of tokens."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return (2e36 * x.clamp(-1, 1)).cumsum(1)

"""Logits processors, applied to the logits in order before a token is chosen.

The usual order is that of the classes here: penalty, temperature, top-k, top-p.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from xformer.errors import ConfigError
from xformer.generation.prefixes import Prefixes

LogitsProcessor = Callable[[Tensor, Prefixes], Tensor]
"""Maps logits (rows vocabulary), and the rows that they continue, to logits."""


LOWEST = 1e-3
"""The lowest temperature; below it logits may overflow, and sampling at it is practically greedy."""
ROUNDING = 1e-5
"""The relative accuracy of a sum of probabilities from float32 logits up to 100."""


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes every token that occurs in the row already, including the prompt, less likely.

    Keskar et al. 2019, "CTRL", section 4.1: x / penalty. A negative logit is multiplied instead (Hugging Face), because
    dividing it would make it more likely. 1 has no effect; the paper uses 1.2.

    Raises:
        ConfigError: the penalty is not positive.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not 0 < self.penalty < math.inf:
            raise ConfigError(f"repetition_penalty={self.penalty} must be positive; 1 has no effect.")

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Penalise the tokens of the row."""
        seen = rows.tokens
        if rows.valid is not None:
            seen = seen.where(rows.valid, seen[:, -1:])  # the last one is never padding
        found = logits.gather(1, seen)
        return logits.scatter(1, seen, (found / self.penalty).where(found > 0, found * self.penalty))


@dataclass(frozen=True)
class Temperature:
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it.

    Raises:
        ConfigError: the temperature is not positive, or so small that logits overflow.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not LOWEST <= self.temperature < math.inf:
            raise ConfigError(
                f"temperature={self.temperature} is out of range; use {LOWEST} or more, or none for greedy decoding."
            )

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Divide all logits."""
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """Keeps the k most likely tokens (Fan et al. 2018), and all tokens tied with the last of them.

    Raises:
        ConfigError: k is below 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"top_k={self.k} keeps no token; use 1 or more.")

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Mask the others."""
        least = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]
        return logits.masked_fill(logits < least, float("-inf"))


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of most likely tokens with total probability p or more (Holtzman et al. 2020, nucleus).

    Ties at the border are broken by the lower id. A sum within 1e-5 of p has reached it, because float32 logits are no
    more accurate.

    Raises:
        ConfigError: p is not in (0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"top_p={self.p} is out of range; use more than 0 and at most 1.")

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Mask the others."""
        if self.p == 1:
            return logits  # which rounding would cut off the ends of
        sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
        reached = sorted_logits.double().softmax(-1).cumsum(-1) >= self.p * (1 - ROUNDING)
        # A token is kept while the sum before it is below p, so the first always is.
        gone = reached.roll(1, dims=-1)
        gone[:, 0] = False
        return logits.masked_fill(gone.scatter(1, order, gone), float("-inf"))

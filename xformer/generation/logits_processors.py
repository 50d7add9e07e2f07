"""Logits processors: what changes the logits before a token is chosen, applied in order.

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
"""Logits (rows vocabulary) and the rows they continue, to logits."""


LOWEST = 1e-3
"""Logits divided by less may overflow; at this temperature sampling is as good as greedy."""
ROUNDING = 1e-5
"""How closely float32 logits up to 100 tell a sum of probabilities, as a share of it."""


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes every token that is in the row already, prompt included, less likely.

    Keskar et al. 2019, "CTRL", section 4.1: x / penalty. A negative logit is multiplied instead (Hugging Face), as
    dividing it would make it more likely. 1 changes nothing; the paper uses 1.2.

    Raises:
        ConfigError: the penalty is not positive.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not 0 < self.penalty < math.inf:
            raise ConfigError(f"repetition_penalty={self.penalty} must be positive; 1 changes nothing.")

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Divide what has been seen."""
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
                f"temperature={self.temperature} is out of range: use {LOWEST} or more, or none for greedy."
            )

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Divide all."""
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """Keeps the k most likely tokens (Fan et al. 2018); of equal ones at the border, all.

    Raises:
        ConfigError: nothing is kept.
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
    """Keeps the fewest most likely tokens whose probabilities add up to p at least (Holtzman et al. 2020, nucleus).

    Of equally likely ones at the border, those with the lower ids. A sum within 1e-5 of p has reached it: the last bit
    of a float32 logit leaves so much open.

    Raises:
        ConfigError: p is not in (0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"top_p={self.p} is no share of the probability; use more than 0 and at most 1.")

    def __call__(self, logits: Float[Tensor, "rows vocabulary"], rows: Prefixes) -> Float[Tensor, "rows vocabulary"]:
        """Mask the others."""
        if self.p == 1:
            return logits  # which rounding would cut off the ends of
        sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
        reached = sorted_logits.double().softmax(-1).cumsum(-1) >= self.p * (1 - ROUNDING)
        # A token stays while those before it have not reached p; the first always does.
        gone = reached.roll(1, dims=-1)
        gone[:, 0] = False
        return logits.masked_fill(gone.scatter(1, order, gone), float("-inf"))

"""Scaling of vectors before a norm, so that the squares of large numbers do not overflow.

A product of queries, keys and values grows with the third power of a mixer's input and more, and its square with the
sixth: for inputs of 1e6, beyond float32's 3e38. A norm of what is scaled is the norm itself, but for its epsilon.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def limit_magnitude(x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
    """Divide vectors with a large maximum so that it is the fourth root of the type's largest number, about 4e9.

    Other vectors stay the same to the bit. Cubes of the limit and of its inverse, which gradients of norms have, are
    in the type's range, and an epsilon of 1e-5 is below the rounding of its square, before the division and after. The
    factor has no gradient, as a norm that follows does not depend on it.

    Args:
        x: the vectors, of which each is normalised by itself or with others that are scaled alike.
    """
    limit: float = torch.finfo(x.dtype).max ** 0.25
    factor: Tensor = limit / x.detach().abs().amax(-1, keepdim=True).clamp(min=limit)
    return x * factor

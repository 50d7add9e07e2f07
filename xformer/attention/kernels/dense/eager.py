"""Softmax attention with all scores written out ("eager"), in plain PyTorch.

For scores that are not scaled products, and for a bias whose term in the values needs the weights; fused kernels
support neither. Time and memory O(q k).
"""

from jaxtyping import Float
from torch import Tensor

from xformer.core.bias import RelativeBias, dense_scores
from xformer.core.mask import Mask


def eager_attention(
    scores: Float[Tensor, "b h q k"],
    value: Float[Tensor, "b h k d"],
    *,
    query: Float[Tensor, "b h q d"],
    mask: Mask,
    bias: RelativeBias | None,
) -> Float[Tensor, "b h q d"]:
    """Attend with given scores: softmax(scores + B) V over the allowed keys; zeros for a query without any.

    Args:
        scores: the scores of all pairs, without a bias.
        value: the values.
        query: the queries, for a bias that depends on them.
        mask: the mask.
        bias: B, and its term in the values.
    """
    if bias is not None:
        scores = scores + dense_scores(bias, query, mask)
    allowed = mask.dense()
    if allowed is None:
        weights = scores.softmax(dim=-1)
    else:
        # A query without a key attends to all, so that its gradient is not NaN, and its weights become zero.
        some = allowed.any(dim=-1, keepdim=True)
        weights = scores.masked_fill(~allowed & some, float("-inf")).softmax(dim=-1) * some
    mixed = weights @ value
    term = bias.values(weights, mask.distances()) if bias is not None and bias.adds_values else None
    return mixed if term is None else mixed + term

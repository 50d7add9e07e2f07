"""Softmax attention with all scores written out ("eager"), in plain PyTorch.

For scores that are no scaled product, and for a bias whose term in the values takes the attention's weights: a fused
kernel computes neither. Time and memory O(q k).
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
        scores: of every query and key, without a bias.
        value: what is mixed.
        query: what a bias of the content sees.
        mask: which keys are allowed.
        bias: B, and a term in the values.
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

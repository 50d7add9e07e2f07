"""Greedy decoding from an encoder-decoder, in one call."""

from collections.abc import Callable

from jaxtyping import Bool, Int
from torch import Tensor

from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.generation.generate import generate_tokens
from xformer.generation.sampling import most_likely
from xformer.generation.seq2seq_prefixes import Seq2SeqPrefixes


def greedy_decode(
    model: EncoderDecoder,
    logits: Callable[[Tensor], Tensor],
    source: Int[Tensor, "batch source"],
    padding_mask: Bool[Tensor, "batch source"] | None,
    *,
    begin: int,
    end: int,
    max_new: int,
) -> Int[Tensor, "batch new"]:
    """Generate the target of each source greedily, in evaluation mode; after its end token, a row repeats it.

    Args:
        model: the encoder-decoder.
        logits: hidden states (batch 1 d_model) to logits (batch 1 vocabulary).
        source: token ids.
        padding_mask: False at padding of the source.
        begin: the token that begins a target; it is not returned.
        end: the token that ends a target.
        max_new: the maximum number of new tokens.
    """
    prefixes = Seq2SeqPrefixes(model, logits, source, padding_mask, begin=begin, max_new=max_new)
    return generate_tokens(prefixes, most_likely, end=end)

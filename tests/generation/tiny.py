"""Tiny models to decode from, with logits sharp enough for texts to differ."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close

from tests.architecture import tiny
from tests.contracts.variants import ATTENTIONS, attention_class
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.architecture.stack import Stack
from xformer.core.capability import Capability
from xformer.generation.causal_prefixes import CausalPrefixes
from xformer.generation.prefixes import Prefixes, pad_left, pad_right
from xformer.generation.seq2seq_prefixes import Seq2SeqPrefixes

VOCABULARY, LENGTH = tiny.VOCABULARY, tiny.LENGTH
END, BEGIN = 0, 1
CAUSAL = [name for name in ATTENTIONS if Capability.CAUSAL in attention_class(name).provides]
PROMPTS = [torch.tensor([3, 4, 5, 6, 7]), torch.tensor([8]), torch.tensor([2, 9, 3])]


def forgetful(factory: Any) -> Any:
    """The same variant without a decoding state."""

    def build(context: Any) -> Any:
        attention = factory(context)
        kind = type(attention)
        attention.__class__ = type(kind.__name__, (kind,), {"provides": kind.provides & ~Capability.INCREMENTAL})
        return attention

    return build


def decoder(attention: Any = "full", position: str = "learned", **options: Any) -> Stack:
    return tiny.randomised(tiny.stack(Decoder, attention=attention, position=position, **options)).double()


def encoder_decoder(**options: Any) -> EncoderDecoder:
    return tiny.randomised(tiny.encoder_decoder(**options)).double()


def head(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda hidden: linear(hidden, model.embedding.weight)


def continuing(model: Stack, prompts: list[Tensor], max_new: int) -> CausalPrefixes:
    return CausalPrefixes(model, head(model), *pad_left(prompts), max_new)


def transducing(model: EncoderDecoder, sources: list[Tensor], max_new: int) -> Seq2SeqPrefixes:
    source, mask = pad_right(sources)
    return Seq2SeqPrefixes(model, head(model), source, mask, begin=BEGIN, max_new=max_new)


def prefixes(model: Stack | EncoderDecoder, prompts: list[Tensor], max_new: int) -> Prefixes:
    if isinstance(model, EncoderDecoder):
        return transducing(model, prompts, max_new)
    return continuing(model, prompts, max_new)


@torch.no_grad()
def next_logits(model: Stack | EncoderDecoder, prompt: Tensor, written: Tensor) -> Tensor:
    """The next token's, from the architecture's plain forward over one row: the definition."""
    if isinstance(model, EncoderDecoder):
        target = torch.cat((torch.tensor([BEGIN]), written))
        return head(model)(model(prompt[None], None, target[None]))[0, -1]
    tokens = torch.cat((prompt, written))
    if not model.extrapolates:
        tokens = tokens[-model.max_length :]
    return head(model)(model(tokens[None]))[0, -1]


@torch.no_grad()
def all_logits(model: Stack | EncoderDecoder, prompt: Tensor, written: Tensor) -> Tensor:
    """The same for every prefix of what was written (new + 1, vocabulary): one plain forward, as long as it reaches."""
    if isinstance(model, EncoderDecoder):
        target = torch.cat((torch.tensor([BEGIN]), written))
        return head(model)(model(prompt[None], None, target[None]))[0]
    tokens, reach = torch.cat((prompt, written)), len(prompt) + len(written)
    reach = reach if model.extrapolates else min(reach, model.max_length)
    first = head(model)(model(tokens[None, :reach]))[0, len(prompt) - 1 :]
    rest = [next_logits(model, prompt, written[:new]) for new in range(len(first), len(written) + 1)]
    return torch.cat((first, *(row[None] for row in rest)))


def check_every_step(rows: Prefixes, model: Stack | EncoderDecoder, written: Tensor) -> None:
    """That each step of `rows` has the logits of a plain forward of each row alone."""
    expected = [all_logits(model, prompt, row) for prompt, row in zip(PROMPTS, written, strict=True)]
    with torch.no_grad():
        for step, tokens in enumerate(written.T):
            logits = rows.logits()
            for row, one in enumerate(expected):
                assert_close(logits[row], one[step], atol=1e-5, rtol=1e-5)
            rows.append(tokens)


def greedily(model, prompt: Tensor, max_new: int) -> list[int]:
    """Greedy decoding by definition."""
    written: list[int] = []
    while len(written) < max_new and END not in written:
        logits = next_logits(model, prompt, torch.tensor(written, dtype=torch.long))
        written.append(int(logits.argmax()))
    return written

"""What Hugging Face's `generate` writes with the same weights: greedy and with beams, prompts of unequal length.

Its `early_stopping=False` is a heuristic that may stop before the best is found; ours is its "never".
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, LlamaForCausalLM, T5ForConditionalGeneration

from tests.contracts.variants import position_factory
from tests.parity.test_bert_vit_gpt2 import copy_gpt2, gpt2_config
from tests.parity.test_llama_bloom import LLAMA, like_llama
from tests.parity.test_t5_model import T5_CONFIG, like_t5
from tests.parity.weights import SIZE, build, randomise
from xformer.architecture.decoder import Decoder
from xformer.generation.beam_search import beam_search
from xformer.generation.causal_prefixes import CausalPrefixes
from xformer.generation.generate import generate_tokens
from xformer.generation.logits_processors import RepetitionPenalty
from xformer.generation.prefixes import Prefixes, pad_left, pad_right
from xformer.generation.sampling import most_likely
from xformer.generation.seq2seq_prefixes import Seq2SeqPrefixes

END, NEW, PROMPTS = 1, 12, 6
Start = Callable[[], Prefixes]


def rows() -> list[Tensor]:
    return [torch.randint(2, 11, (length,)) for length in (5, 3, 1, 4, 5, 2)]


def gpt2() -> tuple[Any, Start, dict[str, Tensor]]:
    torch.manual_seed(21)  # some texts end, others do not
    theirs = randomise(GPT2LMHeadModel(gpt2_config(length=NEW + 5)))
    ours = build(Decoder, NEW + 5, position=position_factory("learned"))
    copy_gpt2(ours, theirs.transformer)
    ours.tower.position.table.weight.data = theirs.transformer.wpe.weight / SIZE.d_model**0.5  # ours multiplies
    ours.embedding = theirs.transformer.wte
    return _causal(theirs, ours)


def llama() -> tuple[Any, Start, dict[str, Tensor]]:
    torch.manual_seed(2)  # some texts end, others do not
    theirs = randomise(LlamaForCausalLM(LLAMA))
    ours = like_llama(theirs.model)
    ours.embedding = theirs.model.embed_tokens
    return _causal(theirs, ours)


def _causal(theirs: Any, ours: Decoder) -> tuple[Any, Start, dict[str, Tensor]]:
    tokens, valid = pad_left(rows())
    assert valid is not None
    inputs = {"input_ids": tokens, "attention_mask": valid.long()}
    return theirs, lambda: CausalPrefixes(ours, theirs.lm_head, tokens, valid, NEW), inputs


def t5() -> tuple[Any, Start, dict[str, Tensor]]:
    torch.manual_seed(34)  # some texts end, others do not
    theirs = randomise(T5ForConditionalGeneration(T5_CONFIG))
    ours = like_t5(theirs)
    ours.embedding = theirs.shared
    source, valid = pad_right(rows())
    assert valid is not None
    scale = SIZE.d_model**-0.5  # of T5 with tied embeddings

    def head(hidden: Tensor) -> Tensor:
        logits: Tensor = theirs.lm_head(hidden * scale)
        return logits

    inputs = {"input_ids": source, "attention_mask": valid.long()}
    return theirs, lambda: Seq2SeqPrefixes(ours, head, source, valid, begin=0, max_new=NEW), inputs


MODELS = pytest.mark.parametrize("model", [gpt2, llama, t5])


def generate(theirs: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    output = theirs.generate(
        **inputs,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=END,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    begin = 1 if theirs.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return output.sequences[:, begin:], output.get("sequences_scores")


def assert_same_texts(ours: Tensor, theirs: Tensor) -> None:
    """Both end with end tokens, as many as it takes for the longest."""
    width = max(ours.shape[-1], theirs.shape[-1])
    ours, theirs = (torch.nn.functional.pad(x, (0, width - x.shape[-1]), value=END) for x in (ours, theirs))
    assert torch.equal(ours, theirs)
    assert len({tuple(row) for row in theirs.tolist()}) > 2, "the weights write the same for every prompt"


@MODELS
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy(model: Callable[[], Any], penalty: float) -> None:
    theirs, start, inputs = model()
    expected, _ = generate(theirs, inputs, repetition_penalty=penalty)
    # With a penalty they count padding as a token that was seen; here it is the end token, so only unpadded rows agree.
    agree = torch.ones(PROMPTS, dtype=torch.bool)
    if penalty != 1 and not theirs.config.is_encoder_decoder:
        agree = inputs["attention_mask"].bool().all(dim=1)
    ours = generate_tokens(start(), most_likely, end=END, logits_processors=[RepetitionPenalty(penalty)])
    ours = torch.nn.functional.pad(ours, (0, NEW - ours.shape[1]), value=END)[:, : expected.shape[1]]
    assert torch.equal(ours[agree], expected[agree])
    ended = (expected == END).any(dim=1)
    assert penalty != 1 or (ended.any() and not ended.all() and len({tuple(row) for row in expected.tolist()}) > 3)


@MODELS
@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 1.0), (4, 0.0), (3, 2.0)])
def test_beams(model: Callable[[], Any], beams: int, length_penalty: float, early_stop: bool) -> None:
    theirs, start, inputs = model()
    expected, scores = generate(
        theirs,
        inputs,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=length_penalty,
        early_stopping=early_stop or "never",
    )
    found = beam_search(start(), beams=beams, end=END, length_penalty=length_penalty, early_stop=early_stop)
    assert_same_texts(found.tokens.flatten(0, 1), expected)
    torch.testing.assert_close(found.scores.flatten().float(), scores, atol=1e-4, rtol=1e-4)

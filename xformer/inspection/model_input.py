"""A text as input of a trained model: its forward pass, and readable labels of its tokens."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xformer.data.base import DataModule
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError, DataError
from xformer.generation.greedy import greedy_decode
from xformer.layers.pooling import ClassTokenPooling
from xformer.tasks.base import Task
from xformer.tasks.classification import Classification
from xformer.tasks.seq2seq import Seq2Seq
from xformer.tokenizers.utf8 import unmarked

LONGEST = 2048
"""The maximum number of tokens; larger maps are unreadable and would exhaust the memory."""
_SPECIAL = ("padding", "begin", "end")
_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})


class Axis(NamedTuple):
    """One axis of an attention map: its title, and the labels of its tokens."""

    name: str
    tokens: list[str]


class ModelInput(NamedTuple):
    """One forward pass of a model.

    Attributes:
        forward: runs the model.
        axes: queries and keys, by the slot of the attention.
    """

    forward: Callable[[], object]
    axes: dict[str, tuple[Axis, Axis]]


def read_model_input(task: Task, data: DataModule, text: str, target: str | None = None) -> ModelInput:
    """Prepare a typed text as input of a task's model.

    Args:
        task: the trained task, in evaluation mode.
        data: encodes and decodes the text.
        text: the input, or the source of an encoder-decoder.
        target: the target of an encoder-decoder; None for the one that the model generates.

    Raises:
        DataError: the text is empty, too long, or does not have the form of the data.
        ConfigError: a target was passed to a task that has none.
    """
    source = _encode(data, text, "--input")
    if isinstance(task, Seq2Seq):
        return _pair(task, data, source, target)
    if target is not None:
        raise ConfigError("--target needs a run of an encoder-decoder, such as task=seq2seq.")
    names = token_labels(data, source[0].tolist())
    if isinstance(task, Classification):
        source, _ = task.pooling.prepare(source, None)
        names = ["<class>"] * isinstance(task.pooling, ClassTokenPooling) + names
    axis = Axis("input", names)
    return ModelInput(lambda: task.model(source), dict.fromkeys(task.model.slots, (axis, axis)))


def _pair(task: Seq2Seq, data: DataModule, source: Tensor, text: str | None) -> ModelInput:
    spec = data.spec
    assert spec.begin is not None
    assert spec.end is not None
    if text is None:
        about = {"begin": spec.begin, "end": spec.end, "max_new": spec.length}
        written = greedy_decode(task.model, task.logits, source, None, **about)
    else:
        written = _encode(data, text, "--target")
        if written[0, -1] != spec.end:
            written = torch.nn.functional.pad(written, (0, 1), value=spec.end)
    target = torch.nn.functional.pad(written[:, :-1], (1, 0), value=spec.begin)
    read, decoder_labels, target_labels = (token_labels(data, ids[0].tolist()) for ids in (source, target, written))
    inputs, targets = Axis("source", read), Axis("target so far", decoder_labels)
    axes = {
        "attention": (inputs, inputs),
        "decoder_attention": (targets, targets),
        # A row of the alignment is labelled by the token it predicts, as in Bahdanau et al. 2015, figure 3.
        "cross_attention": (Axis("token written", target_labels), inputs),
    }
    return ModelInput(lambda: task.model(source, None, target), axes)


def _encode(data: DataModule, text: str, option: str) -> Tensor:
    text = unmarked(text)
    if not text:
        raise DataError(f"{option} is empty; pass at least one token.")
    ids = data.encode(text)
    if not len(ids):
        raise DataError(f"{option} {text[:40]!r} has no token that the model can read; pass another text.")
    if len(ids) > LONGEST:
        raise DataError(f"{option} has {len(ids):,} tokens, but maps are limited to {LONGEST:,}; pass fewer.")
    return torch.as_tensor(ids, dtype=torch.long)[None]


def token_labels(data: DataModule, ids: Sequence[int]) -> list[str]:
    """The label of each token, with whitespace made visible."""
    special = _special(data.spec)
    return [special.get(token) or data.decode([token]).translate(_VISIBLE) or f"<{token}>" for token in ids]


def _special(spec: DataSpec) -> dict[int, str]:
    found = {getattr(spec, name): f"<{name}>" for name in _SPECIAL}
    return {token: name for token, name in found.items() if token is not None}

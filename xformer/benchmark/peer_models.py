"""Decoders of other libraries with the sizes of ours, trained on the same tokens."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from xformer.architecture.size import Size
from xformer.benchmark.models import Workload
from xformer.config.groups import nearest
from xformer.errors import ConfigError


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder, with which all peers are built.

    Attributes:
        size: layers, features, heads.
        workload: vocabulary and longest sequence.
    """

    size: Size
    workload: Workload


def installed(
    decoder: DecoderShape, nanogpt: str | None, others: Sequence[str] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """The peers whose package is installed, as modules from (tokens, labels) to the loss.

    Args:
        decoder: the sizes of the decoder.
        nanogpt: nanoGPT's `model.py` or its directory; None to skip it.
        others: the names of other peers to measure; None for all.

    Raises:
        ConfigError: a name in `others` is unknown or not installed.
    """
    known = {name: package for package, name, _ in _BUILDERS}
    for name in others or ():
        if name not in known:
            raise ConfigError(f"others has {name}, which is not known; {nearest(name, known)}")
        if find_spec(known[name]) is None:
            raise ConfigError(
                f"others has {name}, whose package {known[name]} is not installed; remove it or install the package."
            )
    if nanogpt is not None:
        yield "nanoGPT", _nanogpt(decoder, Path(nanogpt))
    for package, name, build in _BUILDERS:
        if find_spec(package) is not None and (others is None or name in others):
            with warnings.catch_warnings():  # of their own code about their own code
                warnings.simplefilter("ignore")
                model = build(decoder)
            yield name, Predicting(model)


def gpt2(decoder: DecoderShape) -> nn.Module:
    """Build Hugging Face's GPT-2, with the activation that is a single kernel."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=decoder.workload.vocabulary,
        n_positions=decoder.workload.length,
        n_embd=decoder.size.d_model,
        n_layer=decoder.size.layers,
        n_head=decoder.size.heads,
        n_inner=decoder.size.feed_forward,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


class Predicting(nn.Module):
    """A wrapper that adds our loss to a model of logits.

    Args:
        model: maps tokens to logits, or to an object with logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "batch length"], labels: Int[Tensor, "batch length"]) -> Float[Tensor, ""]:
        """Cross-entropy in nats per token."""
        found = self.model(tokens)
        logits: Tensor = getattr(found, "logits", found)
        return cross_entropy(logits.flatten(0, 1), labels.flatten())


class TorchDecoder(nn.Module):
    """A decoder of torch's own layers as in its documentation: causal mask, pre-norm, tied embeddings.

    Args:
        decoder: the sizes of the decoder.
    """

    def __init__(self, decoder: DecoderShape) -> None:
        super().__init__()
        size, workload = decoder.size, decoder.workload
        layer = nn.TransformerEncoderLayer(
            size.d_model, size.heads, size.feed_forward, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.tokens, self.positions = (
            nn.Embedding(rows, size.d_model) for rows in (workload.vocabulary, workload.length)
        )
        norm = nn.LayerNorm(size.d_model)
        self.stack = nn.TransformerEncoder(layer, size.layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(size.d_model, workload.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(workload.length), persistent=False)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length vocabulary"]:
        """The logits of the next token at every position."""
        n = tokens.shape[1]
        x = self.tokens(tokens) + self.positions(torch.arange(n, device=tokens.device))
        logits: Tensor = self.head(self.stack(x, mask=self.mask[:n, :n], is_causal=True))  # type: ignore[index]
        return logits


def _x_transformers(decoder: DecoderShape) -> nn.Module:
    from x_transformers import Decoder as Layers
    from x_transformers import TransformerWrapper

    size = decoder.size
    layers = Layers(
        dim=size.d_model,
        depth=size.layers,
        heads=size.heads,
        attn_dim_head=size.head_dim,
        ff_mult=size.feed_forward / size.d_model,
        attn_flash=True,
    )
    model: nn.Module = TransformerWrapper(
        num_tokens=decoder.workload.vocabulary,
        max_seq_len=decoder.workload.length,
        attn_layers=layers,
        tie_embedding=True,
    )
    return model


def _nanogpt(decoder: DecoderShape, path: Path) -> nn.Module:
    file = path / "model.py" if path.is_dir() else path
    try:
        loader = SourceFileLoader("nanogpt_model", str(file))
        module: Any = ModuleType(loader.name)
        loader.exec_module(module)
        config = module.GPTConfig(
            block_size=decoder.workload.length,
            vocab_size=decoder.workload.vocabulary,
            n_layer=decoder.size.layers,
            n_head=decoder.size.heads,
            n_embd=decoder.size.d_model,
            dropout=0.0,
            bias=True,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it tells its number of parameters
            return _LossOf(module.GPT(config))
    except (OSError, ImportError, SyntaxError, AttributeError) as error:
        raise ConfigError(
            f"nanogpt={path} is not nanoGPT's model.py ({error}); pass that file or its directory."
        ) from error


class _LossOf(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "batch length"], labels: Int[Tensor, "batch length"]) -> Float[Tensor, ""]:
        loss: Tensor = self.model(tokens, labels)[1]
        return loss


_BUILDERS: list[tuple[str, str, Callable[[DecoderShape], nn.Module]]] = [
    ("torch", "torch TransformerEncoder", TorchDecoder),
    ("transformers", "GPT-2 (transformers)", gpt2),
    ("x_transformers", "x-transformers", _x_transformers),
]

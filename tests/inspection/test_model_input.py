"""What a person typed, as a model reads it, each token with a name that a person knows."""

import pytest
import torch

from tests.conftest import Trained
from xformer.errors import ConfigError, DataError
from xformer.inspection.model_input import LONGEST, read_model_input, token_labels
from xformer.runs.open_run import open_run


def test_tokens_are_named_so_that_each_can_be_seen(trained: Trained) -> None:
    data = open_run(trained("prose")).data  # of bytes
    text = "a b\t\n\rc"
    assert "".join(token_labels(data, data.encode(text).tolist())) == "a␣b⇥↵␍c"
    assert token_labels(data, [data.spec.end]) == ["<end>"]
    assert token_labels(data, [0xE2]) == ["\N{REPLACEMENT CHARACTER}"]


def test_a_pair_has_a_source_a_target_and_what_is_decided(trained: Trained) -> None:
    run = open_run(trained("reverse"))
    reading = read_model_input(run.task, run.data, "4 7", "7 4")
    source, so_far, written = ["4", "7", "<end>"], ["<begin>", "7", "4"], ["7", "4", "<end>"]
    assert {slot: tuple(axis.tokens for axis in axes) for slot, axes in reading.axes.items()} == {
        "attention": (source, source),
        "decoder_attention": (so_far, so_far),
        "cross_attention": (written, source),
    }
    with torch.no_grad():
        assert reading.forward().shape[:2] == (1, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "target", "kind", "words"),
    [
        ("prose", "", None, DataError, "--input is empty"),
        ("prose", "x" * (LONGEST + 1), None, DataError, "2,049 tokens, but maps are limited to 2,048"),
        ("prose", "a", "b", ConfigError, "--target needs a run of an encoder-decoder"),
        ("reverse", "4", "", DataError, "--target is empty"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    name: str, text: str, target: str | None, kind: type[Exception], words: str, trained: Trained
) -> None:
    run = open_run(trained(name))
    with pytest.raises(kind, match=words):
        read_model_input(run.task, run.data, text, target)

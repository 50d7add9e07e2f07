"""Other people's decoders are of our size, causal, and trained as ours is."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from xformer.architecture.size import Size
from xformer.benchmark import peer_models
from xformer.benchmark.models import Workload
from xformer.benchmark.peer_models import DecoderShape, TorchDecoder, gpt2, installed
from xformer.errors import ConfigError

PLACE = Workload(vocabulary=50, length=16, batch=2)
DECODER = DecoderShape(Size(d_model=32, layers=2, heads=2, feed_forward=128), PLACE)


@pytest.mark.parametrize(
    ("name", "words"), [("GPT2 (transformers)", "did you mean GPT-2"), ("GPT-2 (transformers)", "not installed")]
)
def test_a_peer_that_is_not_there_is_refused(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_models, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"others has .*{words}"):
        list(installed(DECODER, None, [name]))


@pytest.mark.parametrize("build_peer", [TorchDecoder, gpt2])
def test_a_peer_is_causal_and_of_the_size_asked_for(build_peer) -> None:
    if build_peer is gpt2:
        pytest.importorskip("transformers", reason="the extra `parity` has transformers")
    model = build_peer(DECODER).eval()
    one = PLACE.tokens()
    other = one.clone()
    other[:, 9] = (other[:, 9] + 1) % PLACE.vocabulary
    logits = [getattr(found, "logits", found) for found in (model(one), model(other))]
    torch.testing.assert_close(logits[0][:, :9], logits[1][:, :9])
    assert not torch.allclose(logits[0][:, 9:], logits[1][:, 9:])
    d, layers = 32, 2
    matrices = layers * (4 * d * d + 2 * d * 128) + (PLACE.vocabulary + PLACE.length) * d
    vectors = layers * (4 * d + 128 + d + 4 * d) + 2 * d
    assert sum(parameter.numel() for parameter in model.parameters()) == matrices + vectors


def test_every_installed_peer_has_the_loss_of_its_logits(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class GPTConfig:\n"
        "    def __init__(self, **given): self.__dict__.update(given)\n"
        "class GPT(torch.nn.Module):\n"
        "    def __init__(self, config):\n"
        "        super().__init__()\n"
        "        self.table = torch.nn.Embedding(config.vocab_size, config.vocab_size)\n"
        "    def forward(self, tokens, labels):\n"
        "        logits = self.table(tokens)\n"
        "        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())\n"
    )
    batch = PLACE.pairs()
    found = dict(installed(DECODER, str(tmp_path)))
    assert "nanoGPT" in found
    for name, module in found.items():
        loss = module(*batch)
        assert loss.shape == ()
        loss.backward()
        if name != "nanoGPT":
            logits = module.model(batch.tokens)
            logits = getattr(logits, "logits", logits)
            torch.testing.assert_close(loss, cross_entropy(logits.flatten(0, 1), batch.labels.flatten()))


def test_a_wrong_nanogpt_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not nanoGPT's model\.py"):
        dict(installed(DECODER, str(tmp_path)))

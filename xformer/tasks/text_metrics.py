"""BLEU and chrF of generated text, computed by sacrebleu (Post 2018) over the texts of all processes."""

from abc import abstractmethod
from importlib.util import find_spec

import torch
from torch import Tensor
from torchmetrics import Metric

from xformer.errors import ConfigError

_END = b"\0"


class TextMetric(Metric):
    """Base class of corpus scores with one reference per text. Subclasses implement `score`.

    Texts are stored as zero-terminated bytes, because processes only exchange tensors; a zero inside a text becomes a
    blank.
    """

    higher_is_better = True
    full_state_update = False
    written: list[Tensor]
    references: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("written", [], dist_reduce_fx="cat")
        self.add_state("references", [], dist_reduce_fx="cat")

    @abstractmethod
    def score(self, written: list[str], references: list[str]) -> float:
        """Compute the score of texts against references."""

    def update(self, written: list[str], references: list[str]) -> None:
        """Update with a batch.

        Raises:
            ConfigError: sacrebleu is not installed.
            ValueError: the numbers of texts and references differ.
        """
        if find_spec("sacrebleu") is None:
            raise ConfigError(
                "task=seq2seq scores its output with sacrebleu, which is not installed: pip install sacrebleu."
            )
        if len(written) != len(references):
            raise ValueError(f"{len(written)} texts cannot be scored against {len(references)} references.")
        self.written.append(_bytes(written).to(self.device))
        self.references.append(_bytes(references).to(self.device))

    def compute(self) -> Tensor:
        """The score, from 0 to 100."""
        score = self.score(_texts(self.written), _texts(self.references))
        return torch.tensor(score, dtype=torch.float32, device=self.device)


class BLEU(TextMetric):
    """sacrebleu's corpus BLEU: `13a` tokens, n-grams up to 4, exponential smoothing (Papineni et al. 2002)."""

    def score(self, written: list[str], references: list[str]) -> float:
        """BLEU of texts."""
        from sacrebleu.metrics.bleu import BLEU as Score

        return float(Score().corpus_score(written, [references]).score)


class ChrF(TextMetric):
    """sacrebleu's corpus chrF2: character n-grams up to 6, beta 2 (Popović 2015)."""

    def score(self, written: list[str], references: list[str]) -> float:
        """ChrF of texts."""
        from sacrebleu.metrics.chrf import CHRF as Score

        return float(Score().corpus_score(written, [references]).score)


def _bytes(texts: list[str]) -> Tensor:
    content = b"".join(text.replace("\0", " ").encode("utf-8", errors="replace") + _END for text in texts)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _texts(state: list[Tensor] | Tensor) -> list[str]:
    # A list as it was filled, one tensor after processes exchanged theirs.
    whole = state if isinstance(state, Tensor) else torch.cat(state)
    return whole.cpu().numpy().tobytes().decode("utf-8").split("\0")[:-1]

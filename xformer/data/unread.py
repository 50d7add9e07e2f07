"""Text that a tokenizer has no token for: counted while it is packed, and told beside the data it is missing from."""

import json
from pathlib import Path

from xformer.tokenizers.base import Tokenizer

FILE = "unread.json"


class Unread:
    """Counts, split by split, the bytes of what was packed and of what of it no token stands for.

    Args:
        tokenizer: trained.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, list[int]] = {}

    def read(self, split: str, text: str) -> int:
        """Count a text; the bytes, in UTF-8, that its tokens stand for."""
        whole, lost = len(text.encode("utf-8", errors="surrogatepass")), self._tokenizer.unread(text)
        counts = self._counts.setdefault(split, [0, 0])
        counts[0] += lost
        counts[1] += whole
        return whole - lost

    def save(self, directory: Path) -> None:
        """Leave the counts where there is anything to tell."""
        if any(lost for lost, _ in self._counts.values()):
            (directory / FILE).write_text(json.dumps(self._counts), encoding="utf-8")


def remark(directory: Path) -> str:
    """What to say of a packed directory; nothing where all of it was read."""
    if not (directory / FILE).exists():
        return ""
    counts = json.loads((directory / FILE).read_text(encoding="utf-8"))
    shares = ", ".join(f"{100 * lost / max(1, whole):.3g} % of {split}" for split, (lost, whole) in counts.items())
    return f"; unread, as the tokenizer has no token for it: {shares} (bytes)"

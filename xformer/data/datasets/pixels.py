"""Images as sequences of pixels, one token each, as in the Long Range Arena (Tay et al. 2021)."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from xformer.data.batch import ClassificationBatch
from xformer.data.datasets.images import Images
from xformer.data.splits import PixelRows, StoredImages


@dataclass(kw_only=True, eq=False, repr=False)
class Pixels(Images):
    """Labelled grey images as sequences of pixels of 256 levels; the settings are those of `Images`."""

    yields: ClassVar[type] = ClassificationBatch
    stored: ClassVar[type[StoredImages]] = PixelRows

    channels: Literal[1, 3] = field(init=False, default=1)
    mean: list[float] | None = field(init=False, default=None)
    std: list[float] | None = field(init=False, default=None)

    def load(self) -> None:
        """Map the images into memory; the data are sequences, and no images."""
        super().load()
        self.spec = replace(self.spec, image=None)

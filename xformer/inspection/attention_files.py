"""Attention maps on disk: a picture per layer, the page and the numbers."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from xformer.errors import DataError
from xformer.inspection.attention_maps import AttentionMap
from xformer.inspection.attention_page import Picture, attention_page
from xformer.inspection.draw_attention import Scale, draw_attention
from xformer.inspection.model_input import Axis


def write_attention_maps(
    directory: Path, title: str, text: str, maps: Sequence[AttentionMap], axes: dict[str, tuple[Axis, Axis]]
) -> list[Path]:
    """Write the maps of one input.

    `maps.npz` has for every slot an array (layers heads queries keys), the tokens, `SLOT.queries` and `SLOT.keys`, and
    `SLOT.error`, for each layer how far weights times values are from its output, as a share of it.

    Args:
        directory: for the files; it is made.
        title: of the page.
        text: what the model read.
        maps: slot by slot, layer by layer.
        axes: queries and keys, by slot.

    Returns:
        The files, the page first.

    Raises:
        DataError: the directory cannot be written to.
    """
    pictures, numbers = list[Picture](), dict[str, np.ndarray]()
    for slot, group in groupby(maps, lambda each: each.slot):
        layers, (queries, keys) = list(group), axes[slot]
        scale = Scale(layers)
        pictures += [Picture(each, draw_attention(each, queries, keys, scale)) for each in layers]
        numbers[slot] = np.stack([each.weights[0].numpy() for each in layers])
        numbers[f"{slot}.error"] = np.array([each.error for each in layers])
        numbers[f"{slot}.queries"], numbers[f"{slot}.keys"] = np.array(queries.tokens), np.array(keys.tokens)
    files = [directory / f"{each.attention.slot}-layer-{each.attention.layer}.png" for each in pictures]
    index, archive = directory / "index.html", directory / "maps.npz"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        index.write_text(attention_page(title, text, pictures, axes), encoding="utf-8")
        for file, picture in zip(files, pictures, strict=True):
            file.write_bytes(picture.png)
        np.savez_compressed(archive, **numbers)  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{directory} cannot be written to ({error.strerror}): give another --output.") from error
    return [index, *files, archive]

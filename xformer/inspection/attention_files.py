"""Attention maps on disk: a picture per layer, the page and the numbers."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from xformer.errors import DataError
from xformer.inspection.attention_maps import AttentionMap, LayerMap
from xformer.inspection.attention_page import Picture, attention_page
from xformer.inspection.draw_attention import Scale, draw_attention
from xformer.inspection.influence_maps import InfluenceMap
from xformer.inspection.model_input import Axis


def write_attention_maps(
    directory: Path, title: str, text: str, maps: Sequence[LayerMap], axes: dict[str, tuple[Axis, Axis]]
) -> list[Path]:
    """Write the maps of one input.

    `maps.npz` has the tokens, `SLOT.queries` and `SLOT.keys`, and for every slot

        SLOT                    the weights, an array (layers heads queries keys)
        SLOT.layers             which layers these are
        SLOT.error              relative error of weights times values, plus the constant, against the output, by layer
        SLOT.constant           relative size of the constant that is added to weights times values, by layer
        SLOT.influence          the influence of layers without weights: (layers queries keys)
        SLOT.influence.layers   which layers these are
        SLOT.influence.error    its standard error, relative to the map's norm, by layer; 0 if it is exact

        Entries of weights or of influence are omitted if no layer has them.

    Args:
        directory: the directory for the files, created if needed.
        title: the title of the page.
        text: the text that the model read.
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
        weighted = [each for each in layers if isinstance(each, AttentionMap)]
        others = [each for each in layers if isinstance(each, InfluenceMap)]
        scales = {kind: Scale(some) for kind, some in ((AttentionMap, weighted), (InfluenceMap, others)) if some}
        pictures += [Picture(each, draw_attention(each, queries, keys, scales[type(each)])) for each in layers]
        numbers |= {f"{slot}{name}": values for name, values in (_weights(weighted) | _influence(others)).items()}
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
        raise DataError(f"{directory} cannot be written to ({error.strerror}); use another --output.") from error
    return [index, *files, archive]


def _weights(layers: Sequence[AttentionMap]) -> dict[str, np.ndarray]:
    if not layers:
        return {}
    return {
        "": np.stack([each.weights[0].numpy() for each in layers]),
        ".layers": np.array([each.layer for each in layers]),
        ".error": np.array([each.error for each in layers]),
        ".constant": np.array([each.constant for each in layers]),
    }


def _influence(layers: Sequence[InfluenceMap]) -> dict[str, np.ndarray]:
    if not layers:
        return {}
    return {
        ".influence": np.stack([each.influence[0, 0].numpy() for each in layers]),
        ".influence.layers": np.array([each.layer for each in layers]),
        ".influence.error": np.array([each.error for each in layers]),
    }

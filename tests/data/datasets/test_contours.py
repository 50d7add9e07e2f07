"""Contours against a flood fill that knows nothing of contours, a drawing by Pillow, and its statistics."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image, ImageDraw
from scipy import ndimage

from tests.data.conftest import CONF
from xformer.data.datasets import contours
from xformer.data.datasets.contours import Scenes, Style, draw_contours, scenes, tips
from xformer.errors import ConfigError

SCALE = 16


def style(name: str, **changes: Any) -> Style:
    config = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    return Style(**{**{key: config[key] for key in Style.__dataclass_fields__}, **changes})


def some(own: Style, count: int, seed: int = 0) -> Scenes:
    parts = list(scenes(np.random.default_rng(seed), own, np.arange(count) % 2))
    return Scenes(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def grown(own: Style, paddles: NDArray[np.float64], by: float) -> NDArray[np.bool_]:
    """The paddles as Pillow draws them, many times larger and thickened on all sides."""
    size = own.image_size * SCALE
    image = Image.new("1", (size, size))
    pen = ImageDraw.Draw(image)
    for ends in paddles:
        (a, b), (c, d) = (ends * SCALE).tolist()
        pen.line([(a, b), (c, d)], fill=1, width=max(1, round(2 * by * SCALE)))
        for x, y in ((a, b), (c, d)):
            pen.ellipse([x - by * SCALE, y - by * SCALE, x + by * SCALE, y + by * SCALE], fill=1)
    return np.asarray(image)


@pytest.mark.parametrize(("name", "count"), [("pathfinder", 24), ("pathfinder_lra", 6)])
def test_a_flood_from_one_circle_reaches_the_other_where_the_label_says_so(name: str, count: int) -> None:
    own = style(name)
    found = some(own, count)
    for paddles, markers, label in zip(*found, strict=True):
        pieces, number = ndimage.label(grown(own, paddles, own.paddle_margin + own.paddle_thickness / 8))
        assert number == 2 + own.distractors
        first, second = (pieces[tuple((marker[::-1] * SCALE).astype(int))] for marker in markers)
        assert first > 0
        assert second > 0
        assert (first == second) == bool(label)


def test_the_circles_are_at_ends_of_contours() -> None:
    """Inside of a contour, where one paddle ends the next begins within two margins."""
    own = style("pathfinder")
    for paddles, markers, _ in zip(*some(own, 12), strict=True):
        for marker in markers:
            away = np.linalg.norm(paddles - marker, axis=-1).min(axis=1)
            assert away.min() == 0
            assert np.sort(away)[1] > 2 * own.paddle_margin


def test_paddles_keep_the_rules_of_the_style() -> None:
    own = style("pathfinder")
    paddles = some(own, 50).paddles
    np.testing.assert_allclose(np.linalg.norm(paddles[:, :, 1] - paddles[:, :, 0], axis=-1), own.paddle_length)
    assert paddles.min() >= own.padding
    assert paddles.max() <= own.image_size - own.padding
    beginnings, ends = tips(own, paddles)
    np.testing.assert_allclose(np.linalg.norm(beginnings[:, 0] - beginnings[:, 1], axis=-1), own.seed_distance)
    assert np.linalg.norm(beginnings[:, :, None] - ends[:, None], axis=-1).min() > 2 * own.marker_radius
    first = paddles[:, : own.contour_length]
    gaps = np.linalg.norm(first[:, 1:, 0] - first[:, :-1, 1], axis=-1)
    assert gaps.max() <= 2 * own.paddle_margin + 1e-9


def test_straighter_contours_turn_less() -> None:
    def turns(continuity: float) -> float:
        paddles = some(style("pathfinder", continuity=continuity, distractors=0), 50).paddles[:, :6]
        along = paddles[:, :, 1] - paddles[:, :, 0]
        cosines = (along[:, 1:] * along[:, :-1]).sum(-1) / 4
        assert cosines.min() >= np.cos(np.pi / 2 / continuity) - 1e-9
        return float(np.arccos(np.clip(cosines, -1, 1)).mean())

    assert turns(3.0) < 0.6 * turns(1.0)


def test_the_drawing_is_pillows() -> None:
    """Both antialias in their own way, so they agree on what is bright and not on every level."""
    own = style("pathfinder", contrast=1.0)
    found = some(own, 8)
    images = draw_contours(own, found).astype(float) / 255
    for image, paddles, markers in zip(images, found.paddles, found.markers, strict=True):
        large = grown(own, paddles, own.paddle_thickness / 2).astype(float)
        y, x = np.mgrid[: len(large), : len(large)] / SCALE
        for marker in markers:
            large[(x - marker[0]) ** 2 + (y - marker[1]) ** 2 <= own.marker_radius**2] = 1
        expected = large.reshape(own.image_size, SCALE, own.image_size, SCALE).mean((1, 3))
        assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.95
        assert abs(image.sum() / expected.sum() - 1) < 0.2


def test_circles_that_are_near_are_not_joined_more_often() -> None:
    own = style("pathfinder", distractors=0)
    found = some(own, 2000)
    away = np.linalg.norm(found.markers[:, 0] - found.markers[:, 1], axis=-1)
    near = away < np.median(away)
    assert abs(float(found.labels[near].mean()) - 0.5) < 0.1


def test_circles_that_could_touch_two_contours_are_refused() -> None:
    own = style("pathfinder")
    most = 2 * own.paddle_margin  # two paddles keep this and half a thickness more between their middle lines
    assert style("pathfinder", marker_radius=most).marker_radius == most
    with pytest.raises(ConfigError, match=rf"data\.marker_radius={most + 0.01} must be at most {most:g}"):
        style("pathfinder", marker_radius=most + 0.01)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contours, "_PATIENCE", 4)
    with pytest.raises(ConfigError, match=r"data\.image_size=12 has no room for"):
        some(style("pathfinder", image_size=12), 90)

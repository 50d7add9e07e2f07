"""Dashed contours for the Pathfinder task (Linsley et al. 2018): where the dashes lie, and what they look like.

A contour is a row of paddles, straight dashes. After each, its direction is followed for the margin, turned, and
followed for the margin again before the next begins: so the ends of neighbours are at most two margins apart. A
paddle keeps two margins and half a thickness away from every other, those of its own contour included. So contours
grown by a margin and a little never touch, and each is then in one piece: the image alone decides the label.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int, Int64, UInt8

from xformer.errors import ConfigError

Paddles = Float[np.ndarray, "scenes paddles 2 2"]
"""Both ends of every paddle, x before y; the image's corner is the origin, and a pixel is 1 wide."""

_NOWHERE = 1e6
_SCENES = 512
_TRIES = 20
_BACK = 4
_AGE = 40
_PATIENCE = 60
_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 2049)
_SHARES = 0.5 + (_ANGLES + np.sin(2 * _ANGLES) / 2) / np.pi
"""The distribution function of a density proportional to cos^2, to draw from by its inverse."""


@dataclass(frozen=True, kw_only=True)
class PaddleConfig:
    """Settings of one dash; lengths are in pixels."""

    length: Annotated[float, Gt(0)]  # from end to end
    thickness: Annotated[float, Gt(0)]  # of the line
    margin: Annotated[float, Gt(0)]  # half of the gap between two dashes of a contour
    contrast: Annotated[float, Gt(0)]  # brightness, where the circles have 1 and what is brighter is cut off


@dataclass(frozen=True, kw_only=True)
class ContourConfig:
    """Settings of contours: two long ones, and shorter distractors."""

    length: Annotated[int, Ge(1)]  # paddles of each of the two long contours
    distractor_length: Annotated[int, Ge(1)]  # paddles of a distractor
    distractors: Annotated[int, Ge(0)]  # how many distractors there are
    # a turn by the angle a has a density proportional to cos^2(continuity * a), and 0 from the first zero on: the
    # larger, the straighter
    continuity: Annotated[float, Ge(1)]
    seed_distance: Annotated[float, Gt(0)]  # between the beginnings of the two long contours, in pixels


@dataclass(kw_only=True, eq=False)
class Style:
    """The style of Pathfinder's images; lengths are in pixels.

    Raises:
        ConfigError: a circle could touch two contours.
    """

    image_size: Annotated[int, Ge(1)]  # height and width
    marker_radius: Annotated[float, Gt(0)]  # of the circles
    padding: Annotated[float, Ge(0)]  # between a dash and the border
    paddle: PaddleConfig  # the dashes
    contours: ContourConfig  # the rows of dashes

    def __post_init__(self) -> None:
        most = self.clearance - self.paddle.thickness / 2
        if self.marker_radius > most:
            raise ConfigError(
                f"data.marker_radius={self.marker_radius} must be at most {most:g}, so that a "
                "circle touches only one contour."
            )

    @property
    def clearance(self) -> float:
        """The minimum distance between the middle lines of dashes that are not neighbours."""
        return 2 * self.paddle.margin + self.paddle.thickness / 2

    @property
    def paddles(self) -> int:
        """The number of dashes in an image."""
        contours = self.contours
        return 2 * contours.length + contours.distractors * contours.distractor_length


class Scenes(NamedTuple):
    """The geometry of a batch of images, before they are drawn.

    The paddles are those of the first long contour, of the second, and of the distractors, each from its beginning.
    A marker is in the middle of each circle; the label is 1 where both are at the ends of one contour.
    """

    paddles: Paddles
    markers: Float[np.ndarray, "scenes 2 2"]
    labels: Int64[np.ndarray, " scenes"]


def scenes(generator: np.random.Generator, style: Style, labels: Int64[np.ndarray, " scenes"]) -> Iterator[Scenes]:
    """Sample scenes with these labels, about as many at a time as are grown: drawing few takes as long as many.

    Raises:
        ConfigError: what is asked for does not fit into an image.
    """
    growth, done, idle = _Growth(generator, style), 0, 0
    waiting: list[Scenes] = []
    while done < len(labels):
        found = growth.advance()
        found = found[_apart(style, found)][: len(labels) - done]
        idle = 0 if len(found) else idle + 1
        if idle == _PATIENCE * style.paddles:
            raise ConfigError(
                f"data.image_size={style.image_size} has no room for two contours of data.contours.length="
                f"{style.contours.length} and data.contours.distractors={style.contours.distractors}: ask for fewer or "
                "shorter ones."
            )
        if len(found):
            waiting.append(_mark(generator, style, found, labels[done : done + len(found)]))
            done += len(found)
        if done == len(labels) or sum(len(some.labels) for some in waiting) >= _SCENES:
            yield Scenes(*(np.concatenate(fields) for fields in zip(*waiting, strict=True)))
            waiting = []


def _apart(style: Style, paddles: Paddles) -> Bool[np.ndarray, " scenes"]:
    """Select scenes whose circles do not touch, independently of the label, which would otherwise leak."""
    beginnings, ends = tips(style, paddles)
    between = np.linalg.norm(beginnings[:, :, None] - ends[:, None], axis=-1)
    nearest: Bool[np.ndarray, " scenes"] = between.min(axis=(1, 2)) > 2 * style.marker_radius + 2
    return nearest


def _mark(
    generator: np.random.Generator, style: Style, paddles: Paddles, labels: Int64[np.ndarray, " scenes"]
) -> Scenes:
    first = generator.integers(0, 2, len(labels))
    last = np.where(labels == 1, first, 1 - first)
    beginnings, ends = tips(style, paddles)
    rows = np.arange(len(labels))
    return Scenes(paddles, np.stack([beginnings[rows, first], ends[rows, last]], axis=1), labels)


def tips(style: Style, paddles: Paddles) -> tuple[Float[np.ndarray, "scenes 2 2"], Float[np.ndarray, "scenes 2 2"]]:
    """The start and end points of the two long contours."""
    length = style.contours.length
    return paddles[:, [0, length], 0], paddles[:, [length - 1, 2 * length - 1], 1]


def draw_contours(style: Style, scenes: Scenes) -> UInt8[np.ndarray, "scenes height width"]:
    """Draw scenes in grey levels: white circles and dashes on black, antialiased by distance from the middle line."""
    half = style.paddle.thickness / 2
    reach = int(np.ceil((style.paddle.length + style.paddle.thickness) / 2 + 1))
    image = np.zeros((len(scenes.labels), style.image_size, style.image_size))
    for paddle in np.moveaxis(scenes.paddles, 1, 0):
        rows, points = _around(style, paddle.mean(axis=1), reach)
        # The share of a pixel that so thick a line covers, were it parallel to the pixels.
        cover = np.clip(half + 0.5 - _distance(points + 0.5, paddle[:, None]), 0, min(2 * half, 1))
        _brighten(image, rows, points, style.paddle.contrast * cover)
    for marker in np.moveaxis(scenes.markers, 1, 0):
        rows, points = _around(style, marker, int(np.ceil(style.marker_radius + 1)))
        away = np.linalg.norm(points + 0.5 - marker[:, None], axis=-1)
        _brighten(image, rows, points, np.clip(style.marker_radius + 0.5 - away, 0, 1))
    return np.round(255 * np.minimum(image, 1)).astype(np.uint8)


def _around(
    style: Style, middle: Float[np.ndarray, "scenes 2"], reach: int
) -> tuple[Int[np.ndarray, "scenes 1"], Int[np.ndarray, "scenes points 2"]]:
    """The pixels near a point of each scene, x before y; at the border some are repeated."""
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    points = np.clip(np.floor(middle).astype(int)[:, None] + offsets, 0, style.image_size - 1)
    return np.arange(len(middle))[:, None], points


def _brighten(
    image: Float[np.ndarray, "scenes height width"],
    rows: Int[np.ndarray, "scenes 1"],
    points: Int[np.ndarray, "scenes points 2"],
    values: Float[np.ndarray, "scenes points"],
) -> None:
    where = rows, points[..., 1], points[..., 0]
    image[where] = np.maximum(image[where], values)


class _Growth:
    """Grows many scenes at once, one dash at a time.

    A step is tried in up to `_TRIES` ways; where all fail, a few steps are taken back. The long contours grow in turns,
    then the distractors one after the other. A scene that takes too long begins anew.
    """

    def __init__(self, generator: np.random.Generator, style: Style) -> None:
        self.generator, self.style = generator, style
        long, rest = style.contours.length, np.arange(2 * style.contours.length, style.paddles)
        self.order = np.concatenate([np.arange(2 * long).reshape(2, long).T.ravel(), rest])
        """The slot that each step fills: those of one contour are next to each other."""
        self.number = np.argsort(self.order)
        """The step that fills each slot."""
        self.begins = np.concatenate([[0, long], rest[:: style.contours.distractor_length]])
        self.paddles = np.full((_SCENES, style.paddles, 2, 2), _NOWHERE)
        self.step, self.tries, self.age = np.zeros((3, _SCENES), dtype=np.int64)

    def advance(self) -> Paddles:
        """Try one dash in every scene; return the scenes that this completes."""
        rows = np.arange(_SCENES)
        slots = self.order[self.step]
        candidates = self._candidates(rows, slots)
        others = self.paddles.copy()
        follows = ~np.isin(slots, self.begins)
        others[rows[follows], slots[follows] - 1] = _NOWHERE  # neighbours may be near each other
        good = _allowed(self.style, candidates, others)
        self.paddles[rows[good], slots[good]] = candidates[good]
        self.step[good] += 1
        self.tries = np.where(good, 0, self.tries + 1)
        self.age += 1
        done = self.step == self.style.paddles
        complete = self.paddles[done]
        stuck = self.tries == _TRIES
        self.step[stuck] -= self.generator.integers(1, _BACK, stuck.sum(), endpoint=True)
        anew = done | (self.age > _AGE * self.style.paddles)
        self.step = np.where(anew, 0, np.maximum(self.step, 0))
        self.age[anew] = 0
        changed = stuck | anew
        self.tries[changed] = 0
        later = self.number >= self.step[changed, None]
        self.paddles[changed] = np.where(later[..., None, None], _NOWHERE, self.paddles[changed])
        return complete  # type: ignore[no-any-return]

    def _candidates(
        self, rows: Int[np.ndarray, " scenes"], slots: Int[np.ndarray, " scenes"]
    ) -> Float[np.ndarray, "scenes 2 2"]:
        style, draws = self.style, self.generator.random((5, len(rows)))
        # A beginning: anywhere, but that of the second long contour is near that of the first.
        near = self.paddles[:, 0, 0] + style.contours.seed_distance * _unit(2 * np.pi * draws[0])
        anywhere = style.padding + (style.image_size - 2 * style.padding) * draws[1:3].T
        start = np.where((slots == style.contours.length)[:, None], near, anywhere)
        ahead = _unit(2 * np.pi * draws[3])
        # A continuation: a margin on, a turn, and a margin on again.
        last = self.paddles[rows, slots - 1]
        along = last[:, 1] - last[:, 0]
        turn = np.interp(draws[4], _SHARES, _ANGLES) / style.contours.continuity
        turned = _unit(np.arctan2(along[:, 1], along[:, 0]) + turn)
        next_start = last[:, 1] + style.paddle.margin * (along / style.paddle.length + turned)
        follows = ~np.isin(slots, self.begins)[:, None]
        start, ahead = np.where(follows, next_start, start), np.where(follows, turned, ahead)
        return np.stack([start, start + style.paddle.length * ahead], axis=1)


def _allowed(style: Style, candidate: Float[np.ndarray, "scenes 2 2"], others: Paddles) -> Bool[np.ndarray, " scenes"]:
    """Whether a dash is inside the image and clear of others."""
    inside = ((candidate >= style.padding) & (candidate <= style.image_size - style.padding)).all(axis=(1, 2))
    # Most candidates fail, and most of those already because the middles are too near each other.
    middles = (others[:, :, 0] + others[:, :, 1]) / 2 - candidate.mean(axis=1)[:, None]
    good: Bool[np.ndarray, " scenes"] = inside & ((middles**2).sum(-1) >= style.clearance**2).all(axis=1)
    candidate, others = candidate[good], others[good]
    # Two segments are closest at an end, unless they cross: then one of these points is near.
    points = 2 + int(style.paddle.length / style.clearance)
    along = np.linspace(0, 1, points)[:, None]
    segment = candidate[:, None, 0] + along * (candidate[:, None, 1] - candidate[:, None, 0])
    nearest = np.minimum(
        _distance(segment[:, :, None], others[:, None]).min(axis=(1, 2)),
        _distance(others, candidate[:, None, None]).min(axis=(1, 2)),
    )
    good[good] = nearest >= style.clearance
    return good


def _distance(points: Float[np.ndarray, "... 2"], segments: Float[np.ndarray, "... 2 2"]) -> Float[np.ndarray, "..."]:
    """The distance from points to segments."""
    first, along = segments[..., 0, :], segments[..., 1, :] - segments[..., 0, :]
    x, y = points[..., 0] - first[..., 0], points[..., 1] - first[..., 1]
    dx, dy = along[..., 0], along[..., 1]
    share = np.clip((x * dx + y * dy) / np.maximum(dx**2 + dy**2, 1e-12), 0, 1)
    away: Float[np.ndarray, "..."] = np.sqrt((x - share * dx) ** 2 + (y - share * dy) ** 2)
    return away


def _unit(angle: Float[np.ndarray, " scenes"]) -> Float[np.ndarray, "scenes 2"]:
    unit: Float[np.ndarray, "scenes 2"] = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return unit

"""The specification of data: the sizes and ids that a model is built for, stored in each run directory."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The specification of images."""

    channels: int  # 1 for grey, 3 for red, green and blue
    height: int  # in pixels
    width: int  # in pixels
    mean: list[float]  # of each channel's values in [0, 1], to normalise with
    std: list[float]  # of each channel's values in [0, 1], to normalise with


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The specification of data, which decides the sizes of a model's input and output layers."""

    vocabulary: int  # number of token ids, padding included
    length: int  # the longest sequence, in tokens
    classes: int | None = None  # number of labels; None where the labels are tokens
    class_names: list[str] | None = None  # what each label means; None where the numbers say it
    class_counts: list[int] | None = None  # number of training items of each label; None where they are not counted
    padding: int | None = None  # the id that fills short sequences up; None where nothing is padded
    begin: int | None = None  # the id that a written sequence begins with; None where there is none
    end: int | None = None  # the id that a sequence ends with; None where there is none
    # further lengths, in tokens, that the test split is also read at
    test_lengths: list[int] = field(default_factory=list)
    # by split, labels for each byte of the text they stand for; None where they are no text
    tokens_per_byte: dict[str, float] | None = None
    image: ImageSpec | None = None  # of images; None where there are sequences

    @classmethod
    def from_dict(cls, values: Any) -> "DataSpec":
        """The specification that `as_dict` returned.

        Raises:
            ValueError: a value is missing or not of its type; in one line.
        """
        try:
            spec: DataSpec = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return spec

    def as_dict(self) -> dict[str, Any]:
        """The specification as JSON holds it."""
        return asdict(self)

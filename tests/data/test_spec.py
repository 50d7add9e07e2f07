"""What a run directory keeps of its data: it comes back the same, or one line says what is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.spec import DataSpec, ImageSpec

number = st.integers(0, 2**40)
real = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | number
image = {"channels": number, "height": number, "width": number, "mean": st.lists(real), "std": st.lists(real)}
every = st.fixed_dictionaries(
    {
        "vocabulary": number,
        "length": number,
        "classes": maybe,
        "class_names": st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
        "class_counts": st.none() | st.lists(number),
        "padding": maybe,
        "begin": maybe,
        "end": maybe,
        "test_lengths": st.lists(number),
        "tokens_per_byte": st.none() | st.dictionaries(st.sampled_from(["train", "val", "test"]), real),
        "image": st.none() | st.fixed_dictionaries(image),
    }
)
FEW: dict[str, Any] = {"vocabulary": 9, "length": 4}
IMAGE: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.25]}


@settings(deadline=None, max_examples=50)
@given(values=every)
def test_specs_come_back_from_a_file(values: dict[str, Any]) -> None:
    spec = DataSpec(**{**values, "image": values["image"] and ImageSpec(**values["image"])})
    assert set(values) == set(DataSpec.__dataclass_fields__)
    assert DataSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_what_a_dictionary_leaves_out_is_nothing() -> None:
    assert DataSpec.from_dict(FEW) == DataSpec(vocabulary=9, length=4)
    assert DataSpec.from_dict({**FEW, "image": IMAGE}).image == ImageSpec(**IMAGE)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"length": 4}, "vocabulary"),
        ({**FEW, "vocabulary": "9"}, "vocabulary"),
        ({**FEW, "length": 4.5}, "length"),
        ({**FEW, "length": None}, "length"),
        ({**FEW, "classes": True}, "classes"),
        ({**FEW, "class_names": ["a", 1]}, r"class_names\.1"),
        ({**FEW, "tokens_per_byte": {"val": "half"}}, r"tokens_per_byte\.val"),
        ({**FEW, "image": {**IMAGE, "mean": [None]}}, r"image\.mean\.0"),
        ({**FEW, "image": {name: IMAGE[name] for name in IMAGE if name != "std"}}, r"image\.std"),
        ([], ""),
        (None, ""),
    ],
)
def test_a_value_that_is_missing_or_of_another_type_is_named_in_one_line(values: Any, where: str) -> None:
    with pytest.raises(ValueError, match=rf"^{where}: .") as caught:
        DataSpec.from_dict(values)
    assert "\n" not in str(caught.value)

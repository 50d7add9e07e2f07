"""A digest is of values: not of the order of keys, and not of the process."""

import hashlib

from xformer.core.digest import digest


def test_it_is_the_start_of_sha256_of_the_sorted_json() -> None:
    assert (
        digest({"b": 1, "a": [True, None]}, "x")
        == hashlib.sha256(b'[{"a": [true, null], "b": 1}, "x"]').hexdigest()[:16]
    )
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_values_that_differ_differ() -> None:
    values = [(), ("",), (0,), (False,), (None,), ([],), ({},), ("0",), (0.0,), ("a", "b"), (["a", "b"],), ("ab",)]
    assert len({digest(*each) for each in values}) == len(values)

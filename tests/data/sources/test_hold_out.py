from xformer.data.sources.hold_out import hold_out


def test_what_the_source_lacks_is_held_out_of_its_training_rows() -> None:
    found = {"train": list(range(100))}
    parts = hold_out(found, {"val": 0.1, "test": 0.2}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "val": 10, "test": 20}
    assert list(parts) == ["train", "val", "test"]
    assert sorted(row for part in parts.values() for row in part) == list(range(100))
    for part in parts.values():
        assert part == sorted(part) != list(range(part[0], part[0] + len(part)))
    assert parts == hold_out(found, {"val": 0.1, "test": 0.2}, seed=0) != hold_out(found, {"val": 0.1}, seed=1)
    assert hold_out({**found, "val": [7]}, {"val": 0.5}, seed=0) == {"train": found["train"], "val": [7]}

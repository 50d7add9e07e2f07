import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from xformer.core.digest import digest, stable_name_of
from xformer.data.cache import MANIFEST, cached, fingerprint, intact
from xformer.errors import ConfigError


def write(directory: Path) -> None:
    (directory / "a.bin").write_bytes(b"0123456789")
    (directory / "b.txt").write_text("b")


def never(directory: Path) -> None:
    raise AssertionError("built again")


def test_an_entry_is_built_once(tmp_path):
    entry = cached(tmp_path / "new", "entry", write)
    assert (entry / "a.bin").read_bytes() == b"0123456789"
    assert cached(tmp_path / "new", "entry", never) == entry
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["entry"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "a.bin").write_bytes(b"01234"),
        lambda entry: (entry / "a.bin").write_bytes(b"0123456780"),
        lambda entry: (entry / "b.txt").unlink(),
        lambda entry: (entry / MANIFEST).unlink(),
        lambda entry: (entry / MANIFEST).write_text('{"files": {"a.b'),
        lambda entry: (entry / MANIFEST).write_text("[]"),
    ],
    ids=["truncated", "flipped", "missing", "no manifest", "truncated manifest", "other manifest"],
)
def test_damage_is_noticed_and_mended(tmp_path, caplog, damage):
    entry = cached(tmp_path, "entry", write)
    before = fingerprint(entry)
    damage(entry)
    assert not intact(entry)
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path, "entry", write) == entry
    assert "damaged" in caplog.text
    assert intact(entry)
    assert fingerprint(entry) == before
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(directory: Path) -> None:
        write(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "entry", fail)
    assert list(tmp_path.iterdir()) == []


def test_an_entry_appears_in_one_step(tmp_path, monkeypatch):
    def killed(source: Path, target: Path) -> None:
        assert intact(Path(source))
        assert not Path(target).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "entry", write)
    assert list(tmp_path.iterdir()) == []


def test_two_that_build_at_once_both_get_a_whole_entry(tmp_path):
    barrier = Barrier(2)

    def build(directory: Path) -> None:
        barrier.wait(timeout=10)
        write(directory)

    with ThreadPoolExecutor(2) as pool:
        entries = list(pool.map(lambda _: cached(tmp_path, "entry", build), range(2)))
    assert entries[0] == entries[1]
    assert intact(entries[0])
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_fingerprint_follows_the_content(tmp_path):
    first = cached(tmp_path, "first", write)
    same = cached(tmp_path, "same", write)
    other = cached(tmp_path, "other", lambda directory: (directory / "a.bin").write_bytes(b"x") and None)
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)


def test_a_digest_is_stable():
    assert digest("a", {"y": 1, "x": [2]}) == digest("a", {"x": [2], "y": 1}) == "b9892b65617a3bfe"


def test_a_name_is_stated_by_the_class_itself_and_stays_when_it_is_renamed() -> None:
    class Old:
        stable_name = "Old"

    class Renamed(Old):
        stable_name = "Old"

    class Silent(Old):
        """Has the same ids as its parent only by chance, and must not find the parent's cache."""

    assert stable_name_of(Renamed) == stable_name_of(Old) == "Old"
    with pytest.raises(ConfigError, match=r'Silent defines no stable_name, .*: add stable_name = "Silent" to'):
        stable_name_of(Silent)

"""The table of what goes with what: every pair, a note for every no, and the README's copy."""

import re
from pathlib import Path

from tests.contracts.variants import OPTIONS, attention_class
from xformer.config.compatibility_table import SITUATIONS, compatibility_markdown
from xformer.config.groups import groups


def test_the_readme_holds_the_generated_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    _, _, rest = readme.partition("<!-- compatibility -->")
    written, mark, _ = rest.partition("<!-- /compatibility -->")
    assert mark
    assert written.strip() == compatibility_markdown().strip(), "run `xformer compatibility` and paste what it prints"


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a table by variant; several may share a row."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for names, *cells in lines for name in names.split(", ")}


def test_the_tables_have_every_variant_once_and_a_note_for_every_no() -> None:
    found = compatibility_markdown()
    tables = found.split("\n\n")[0], found.split("\n\n")[2]
    for table in tables:
        assert sorted(rows(table)) == sorted(OPTIONS)
        assert len({tuple(cells) for cells in rows(table).values()}) == table.count("\n| `"), "two rows are alike"
    assert all(f" {name} |" in tables[1] for name in groups()["position"])
    signs = set(re.findall(r"no ((?:\[\d+\])+)", found))
    notes = [line for line in found.splitlines() if line.startswith("[")]
    assert {sign for cell in signs for sign in re.findall(r"\[\d+\]", cell)} == {n.split(" ")[0] for n in notes}


def test_every_note_says_of_which_variants_and_capabilities_it_is() -> None:
    notes = dict(re.findall(r"^(\[\d+\]) (.*?)  $", compatibility_markdown(), re.MULTILINE))
    situations = rows(compatibility_markdown().split("\n\n")[0])
    for name, cells in situations.items():
        for situation, cell in zip(SITUATIONS.values(), cells, strict=True):
            assert (cell == "yes") == (situation in attention_class(name).provides)
            if cell != "yes":
                note = notes[cell.removeprefix("no ")]
                assert f"`{name}`" in note
                assert attention_class(name).reasons[situation] in note
                assert str(situation.name).lower() in note.partition(":")[0]

"""The table of what goes with what: every pair, a note for every no, and the README's copy."""

import re
from pathlib import Path

from xformer.config.compatibility_table import compatibility_markdown
from xformer.config.validate import groups


def test_the_readme_holds_the_generated_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    _, _, rest = readme.partition("<!-- compatibility -->")
    written, mark, _ = rest.partition("<!-- /compatibility -->")
    assert mark
    assert written.strip() == compatibility_markdown().strip(), "run `xformer compatibility` and paste what it prints"


def test_the_table_has_every_pair_and_a_note_for_every_no() -> None:
    table = compatibility_markdown()
    for group in ("attention", "position"):
        for option in groups()[group]:
            assert option in table
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == 2 * len(groups()["attention"])
    signs = set(re.findall(r"no ((?:\[\d+\])+)", table))
    notes = [line for line in table.splitlines() if line.startswith("[")]
    assert {sign for cell in signs for sign in re.findall(r"\[\d+\]", cell)} == {n.split(" ")[0] for n in notes}

"""`xformer compatibility` prints the tables."""

from tests.conftest import Command
from xformer.config.compatibility_table import compatibility_markdown


def test_it_prints_what_the_readme_holds(xformer: Command) -> None:
    assert xformer("compatibility") == (0, compatibility_markdown() + "\n", "")

"""Print what goes with what, and why not."""


def main() -> None:
    """Print the tables."""
    from xformer.config.compatibility_table import compatibility_markdown

    print(compatibility_markdown())

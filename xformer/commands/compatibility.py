"""Print what goes with what, and why not."""


def main() -> None:
    """Print the tables."""
    from xformer.config.compatibility_table import markdown

    print(markdown())

"""Print which attentions work with which tasks and position schemes, and why others do not."""


def main() -> None:
    """Print the tables."""
    from xformer.config.compatibility_table import compatibility_markdown

    print(compatibility_markdown())

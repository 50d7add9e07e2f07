"""Write a comparison as one page: table, curves, quality against cost."""

import argparse
from pathlib import Path


def main() -> None:
    """Write the page, and the figures where they are asked for."""
    from xformer.analysis import figures
    from xformer.analysis.page import page
    from xformer.commands.compare import add_selection, compared

    parser = argparse.ArgumentParser(description=__doc__)
    add_selection(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write the figures there too, as SVG and PNG")
    parser.add_argument("--title", default="Comparison")
    arguments = parser.parse_args()
    comparison = compared(arguments)
    arguments.output.write_text(page(comparison, arguments.title), encoding="utf-8")
    print(arguments.output)
    for path in figures.write(comparison, arguments.figures) if arguments.figures else []:
        print(path)

"""Write a comparison as an HTML page: table, curves, quality against cost."""

import argparse
from pathlib import Path


def main() -> None:
    """Write the page, and the figures if --figures is set."""
    from xformer.commands.compare import add_selection, compared, write_file
    from xformer.errors import ConfigError
    from xformer.studies import figures
    from xformer.studies.experiments import only
    from xformer.studies.report_page import report_page

    parser = argparse.ArgumentParser(description=__doc__)
    add_selection(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE")
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="also write the figures to this directory, as SVG and PNG"
    )
    parser.add_argument("--title", default="Comparison")
    arguments = parser.parse_args()
    comparison = only(compared(arguments)[0], "A report")
    drawn = figures.figures(comparison)
    write_file(report_page(comparison, arguments.title, drawn), arguments.output)
    print(arguments.output)
    try:
        for path in figures.write_figures(drawn, arguments.figures) if arguments.figures else []:
            print(path)
    except OSError as error:
        raise ConfigError(f"--figures {arguments.figures} cannot be written: {error.strerror}.") from error

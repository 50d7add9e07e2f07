"""Write a comparison as an HTML page: tables, curves, quality against cost."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Write the page, and the figures if --figures is set."""
    from xformer.commands.compare import add_selection, compared, write_file
    from xformer.errors import ConfigError
    from xformer.studies.experiments import experiment_label
    from xformer.studies.figures import figures, learning_curves, write_figures, write_paper_figures
    from xformer.studies.page_origin import page_origin
    from xformer.studies.report_page import report_page

    parser = argparse.ArgumentParser(description=__doc__)
    add_selection(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also write the figures to this directory")
    parser.add_argument(
        "--style",
        choices=("screen", "paper"),
        default="screen",
        help="of these figures: screen (SVG and PNG; default), or paper (PDF too, for one column and for two)",
    )
    parser.add_argument("--title", help="default: the study's name, or Comparison")
    arguments = parser.parse_args()
    comparisons, study = compared(arguments)
    title = arguments.title or (study.name if study else "Comparison")
    command = ["xformer", "report", *sys.argv[1:]]
    curves = [learning_curves(comparison) for comparison in comparisons]
    page = report_page(comparisons, title, page_origin(command, comparisons), study.question if study else "", curves)
    write_file(page, arguments.output)
    print(arguments.output)
    try:
        for comparison, lines in zip(comparisons, curves, strict=True) if arguments.figures else ():
            words = experiment_label(comparison.experiment).replace(" ", "-") if len(comparisons) > 1 else ""
            folder = arguments.figures / words
            written = (
                write_paper_figures(comparison, folder, lines)
                if arguments.style == "paper"
                else write_figures(figures(comparison, curves=lines), folder)
            )
            for path in written:
                print(path)
    except OSError as error:
        raise ConfigError(f"--figures {arguments.figures} cannot be written: {error.strerror}.") from error

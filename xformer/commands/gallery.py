"""Write the page over all studies, and their figures, from their committed tables."""

import argparse
from pathlib import Path


def main() -> None:
    """Write `docs/studies/`, or the directory named."""
    from xformer.studies.gallery import write_gallery

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/studies"), metavar="DIR")
    for path in write_gallery(parser.parse_args().output):
        print(path)

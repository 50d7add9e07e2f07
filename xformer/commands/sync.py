"""Upload a study's offline runs to Weights & Biases, except those already there."""

import argparse
from pathlib import Path


def main() -> None:
    """Upload each offline run, and print whether it was new."""
    from xformer.studies.study import Study, studies
    from xformer.studies.sync import WandbService, sync_runs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="STUDY | DIR", help="a study, run directories, or directories of sweeps"
    )
    names = parser.parse_args().runs
    known, uploaded = studies(), []
    directories = [Study.of(name).directory if name in known else Path(name) for name in names]
    for directory, now in sync_runs(directories, WandbService()):
        uploaded.append(now)
        print(f"{'uploaded' if now else 'already there':<15}{directory}", flush=True)
    print(f"{sum(uploaded)} of {len(uploaded)} offline runs uploaded")

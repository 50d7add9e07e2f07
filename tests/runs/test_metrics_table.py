"""The table as whoever reads it sees it."""

from pathlib import Path

import pytest

from xformer.errors import DataError
from xformer.runs.metrics_table import read_metrics


def test_what_is_not_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table"):
        read_metrics(tmp_path)
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step\n")
    with pytest.raises(DataError, match="first line"):
        read_metrics(path)
    path.write_text("step,epoch,tokens,seconds,metric,value\n1,0,,0.5,loss\n")
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)

"""The datasets: one file per option of conf/data."""

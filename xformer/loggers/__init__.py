"""Where the metrics of a run go: always a table in its directory, and the loggers that were chosen."""

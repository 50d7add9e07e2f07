"""Data modules, and the typed batches that they pass to tasks."""

"""Data modules, tokenizers and the typed batches between data and tasks."""

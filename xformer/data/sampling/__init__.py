"""In which order items are seen, and in which batches."""

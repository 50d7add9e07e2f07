"""Sampling: the order of items, and batches."""

"""Attention with a score for every pair of a query and a key."""

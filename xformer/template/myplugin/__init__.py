"""Variants for xformer."""

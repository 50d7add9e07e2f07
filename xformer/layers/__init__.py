"""Layers of a Transformer that all attention variants share."""

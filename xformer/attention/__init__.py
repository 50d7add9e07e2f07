"""Attention variants: one file each, derived from the base classes in base.py and mixer.py."""

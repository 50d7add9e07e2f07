"""Position schemes: one file each, derived from the base class in base.py."""

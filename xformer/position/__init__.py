"""Position schemes: one file each, around the seam in base.py."""

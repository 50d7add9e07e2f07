"""What the rest of the package speaks."""

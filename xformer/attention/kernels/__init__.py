"""How scores are computed; a kernel knows no variant."""

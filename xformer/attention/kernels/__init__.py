"""How scores are computed and values mixed; no kernel knows the variant that it serves."""

"""Black-box audit of any module: causality, padding, batch independence, decoding and 16-bit precision."""

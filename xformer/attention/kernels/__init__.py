"""Kernels that compute scores and mix values, independent of the variants that use them."""

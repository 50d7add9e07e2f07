"""Attention whose weights are products of random features, linear in the length."""

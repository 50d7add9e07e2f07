"""Encoder and decoder, and their dimensions."""

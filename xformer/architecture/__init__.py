"""Architectures: encoder, decoder and encoder-decoder, and their dimensions."""

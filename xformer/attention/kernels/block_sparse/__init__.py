"""Softmax attention over the pairs that a mask_mod allows, block by block."""

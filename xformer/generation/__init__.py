"""Decoding from a trained model: greedy, sampling and beam search over one interface."""

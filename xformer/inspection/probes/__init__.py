"""Probes of a model during training, measured on the same few validation examples each time."""

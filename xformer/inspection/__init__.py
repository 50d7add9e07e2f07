"""Inspection of models: attention maps of a trained model, and probes during training."""

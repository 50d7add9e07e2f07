"""Training: running a job from a configuration to a trained model."""

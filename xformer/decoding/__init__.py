"""Writing with a trained model: `prefixes` is the seam to the models, everything else is over it."""

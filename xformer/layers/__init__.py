"""The parts of a Transformer that all variants share."""

"""What a trained model did with an input."""

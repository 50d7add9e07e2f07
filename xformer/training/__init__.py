"""What happens between a configuration and a trained model."""

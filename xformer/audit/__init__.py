"""What a module that somebody has does with the future, padding, the batch and 16 bits, measured from outside."""

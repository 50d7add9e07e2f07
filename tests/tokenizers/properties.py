"""How many examples a property of a tokenizer is tried with."""

from hypothesis import settings

fast = settings(deadline=None, max_examples=60)

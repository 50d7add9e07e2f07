"""Softmax attention over neighbours and a sample of every row, by strided views of the tokens."""

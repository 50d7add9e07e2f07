"""Linear recurrences over a matrix-valued state: linear attention with decay, the delta rule, short convolutions."""

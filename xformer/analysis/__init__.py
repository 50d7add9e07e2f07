"""What came of runs: comparisons of many, read from their directories alone, and what one model did with an input."""

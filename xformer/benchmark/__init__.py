"""Benchmarks: speed as ratios within one process, memory and energy."""

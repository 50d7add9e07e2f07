"""Denormal floating-point numbers, which processors compute slowly."""

import torch


def flush_denormals() -> None:
    """Flush denormal numbers (below 1e-38) to zero.

    They take the processor up to a hundred times as long as others, and decide nothing: softmax with a steep bias is
    full of them, which made ALiBi four times as slow. Threads inherit the setting from the one that starts them, so it
    has to be made before the first operation that starts torch's.
    """
    torch.set_flush_denormal(True)

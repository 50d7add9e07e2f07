"""Callbacks: progress, throughput, exact resumption, saving on interruption, and checks of the loss."""

"""Types and helpers that the rest of the package shares: masks, capabilities, states, devices, precision."""

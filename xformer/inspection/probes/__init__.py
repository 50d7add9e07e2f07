"""What goes on inside of a model while it trains, measured on the same few validation examples each time."""

"""What a model does with an input: attention maps, and probes while it trains."""

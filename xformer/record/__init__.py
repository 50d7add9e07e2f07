"""What a run leaves behind, so that its directory can be read on its own."""

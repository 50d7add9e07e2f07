"""Reading, checking and identifying configurations."""

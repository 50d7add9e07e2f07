"""Speed, measured as ratios within one process."""

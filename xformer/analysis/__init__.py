"""What came of many runs: groups, intervals, verdicts, budgets, figures. It reads run directories and nothing else."""

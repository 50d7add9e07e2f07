"""Many runs: grids and seeds, comparison, statistics, reports and committed studies."""

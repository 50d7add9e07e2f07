"""What watches a run: losses that stop being numbers, throughput, progress, exact resumption."""

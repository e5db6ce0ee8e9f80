"""Results → the benchmarks page, tables and plots."""

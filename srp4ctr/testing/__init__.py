"""What tests and benchmarks share; it is not in the wheel."""

"""Benchmarks of the whole system: soak, monitoring."""

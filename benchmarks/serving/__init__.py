"""Benchmarks of serving: latency, cost, promotion, overload."""

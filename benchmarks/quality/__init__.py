"""Benchmarks of the model: what it ranks, and what helps it."""

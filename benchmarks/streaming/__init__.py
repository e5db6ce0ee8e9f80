"""Benchmarks of the stream and of point-in-time joins."""

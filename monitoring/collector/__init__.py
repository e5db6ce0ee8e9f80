"""The monitor process: topics and Triton → Prometheus metrics."""

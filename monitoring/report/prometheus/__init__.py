"""Prometheus and a period → figures per model version."""

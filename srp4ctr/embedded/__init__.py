"""The stack on one machine without containers: broker, store, Triton, Prometheus."""

"""Sequences, counters and attributes → the named tensors of the model."""

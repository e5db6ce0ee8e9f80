"""Triton's counters → what serving costs per model version."""

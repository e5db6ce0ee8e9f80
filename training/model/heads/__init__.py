"""Heads: the layers that they share, and a file for each score of a candidate."""

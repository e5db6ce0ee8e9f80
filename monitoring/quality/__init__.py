"""Labelled impressions → live quality per model version."""

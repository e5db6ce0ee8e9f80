"""Feature → example → encoder states → score, and the periodic refresh."""

"""The embedded stack for a machine without containers, and the demo that runs on it."""

"""``srp4ctr doctor``: finds what a deployment exposes, and what does not work."""

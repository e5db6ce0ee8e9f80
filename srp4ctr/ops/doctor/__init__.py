"""``srp4ctr doctor``: what of a deployment is open to strangers, and what does not work."""

"""``srp4ctr demo``: the whole loop on real data, with what it needs and shows."""

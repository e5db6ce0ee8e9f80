"""``srp4ctr demo``: the whole loop on real data: its input, its steps and its figures."""

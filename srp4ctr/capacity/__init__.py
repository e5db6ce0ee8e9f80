"""``srp4ctr capacity``: a traffic → the machines that it needs, and what breaks first."""

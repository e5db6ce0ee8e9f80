"""The client of a running Triton: requests, rankings, retries and the canary."""

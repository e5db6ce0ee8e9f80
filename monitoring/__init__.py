"""Score → metric: live quality, cost and freshness."""

"""A running tritonserver, supervised: steps that crash are replaced."""

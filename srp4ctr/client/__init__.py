"""The client of a running Triton: user and candidates → click probabilities."""

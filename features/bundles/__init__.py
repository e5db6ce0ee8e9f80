"""The folder that carries a model from training to serving, and its records."""

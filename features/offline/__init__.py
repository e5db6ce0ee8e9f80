"""The raw log → point-in-time correct features for training."""

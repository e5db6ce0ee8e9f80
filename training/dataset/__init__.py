"""Event log → examples → batches."""

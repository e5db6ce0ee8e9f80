"""The losses of both stages: pre-training and click prediction."""

"""What SRP4CTR is compared with, a model a file; ``registry.py`` lists those of clicks."""

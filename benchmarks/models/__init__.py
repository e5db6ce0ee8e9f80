"""What SRP4CTR is compared with, a model per file; ``registry.py`` lists them."""

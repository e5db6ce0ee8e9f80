"""The tiny model and random requests of the tests of training, for the baselines."""

from tests.training.conftest import recipe, requests_of, sizes, slates

__all__ = ["recipe", "requests_of", "sizes", "slates"]

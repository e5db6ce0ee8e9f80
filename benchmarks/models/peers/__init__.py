"""Other people's models, each run by its own library in an environment of its own."""

"""The page of ``srp4ctr monitor open``, and the playground on it."""

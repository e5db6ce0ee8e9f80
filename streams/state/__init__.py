"""Event → the state of a partition: sequences, counters, exposures and labels."""

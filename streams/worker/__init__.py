"""The stream worker: a Faust application, and what replays and rebuilds its state."""

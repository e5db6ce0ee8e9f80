"""The training loop: epochs, steps, learning rate, checkpoints, processes."""

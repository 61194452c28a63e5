"""One way to train: fit and its loop, checkpoints, random streams."""

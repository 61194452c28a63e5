"""The augmentation of a training step, on tokens."""

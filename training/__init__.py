"""What every training stage shares: configuration, run folder, loop, optimizer, checkpoints, metrics, chance."""

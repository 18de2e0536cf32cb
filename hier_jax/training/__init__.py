"""The training engine: config, optimizer, step, loop, checkpoints, reports."""

"""The training engine: config, optimiser, step, loop, checkpoints, reports."""

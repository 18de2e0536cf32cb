"""What a run is told: keys and defaults, presets, files, checks."""

"""Time and memory of hierarchy metrics and trees, by the number of items."""

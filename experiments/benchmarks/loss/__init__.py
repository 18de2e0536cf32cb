"""Time and memory of HIER."""

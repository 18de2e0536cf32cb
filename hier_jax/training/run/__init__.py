"""A run from config to table."""

"""Time and memory of exact retrieval."""

"""Exact retrieval figures: ranks of positives, tile by tile."""

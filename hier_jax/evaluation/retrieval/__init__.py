"""Exact retrieval metrics: ranks of positives, tile by tile."""

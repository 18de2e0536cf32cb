"""Figures and pages of embeddings and their hierarchy."""

"""Pretrained weights: their files and layouts, and how they are fitted."""

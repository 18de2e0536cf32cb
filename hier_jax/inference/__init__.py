"""Trained models at work: embeddings of images, and the nearest of them."""

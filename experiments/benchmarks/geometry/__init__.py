"""Accuracy and speed of the ball."""

"""TFDS builders, one file a data set; what they share is in `base`."""

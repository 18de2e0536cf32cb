"""Icons by concept: the study's second data set."""

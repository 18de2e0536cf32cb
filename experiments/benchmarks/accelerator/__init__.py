"""What a GPU takes for a step, for HIER's loss and for retrieval."""

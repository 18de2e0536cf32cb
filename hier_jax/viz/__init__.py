"""Pictures and pages of embeddings and of what they hold."""

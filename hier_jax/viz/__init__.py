"""Pictures of embeddings and of the hierarchy that was found in them."""

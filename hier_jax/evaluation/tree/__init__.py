"""Trees of proxies and of embeddings, and files of them."""

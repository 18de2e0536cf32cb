"""How embeddings and proxies hold a taxonomy."""

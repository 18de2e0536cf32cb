"""What devices exchange, and how a step scales."""

"""How smooth the page of `hier-jax explore` is, and how large."""

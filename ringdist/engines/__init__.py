"""How a ring is contracted: sweeps, trees of products, logarithms and other libraries."""

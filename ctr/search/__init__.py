"""Search for a cheaper tower: candidates and their cost, a shared network, its controller."""

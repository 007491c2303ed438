"""Two-dimensional maps of a layer, their clusters and neighbour graphs."""

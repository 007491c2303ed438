"""MuQ: a mel front end, residual 2-D convolutions, and conformer blocks."""

"""Nearest clips: exact, approximate, by mixtures of layers, facets, paths and alignments."""

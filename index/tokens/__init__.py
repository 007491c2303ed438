"""Vocabularies of stored frames, token sequences, the factor oracle and live audio."""

"""Gestures: sounds between two onsets, with their tokens and features, of clips and of live audio."""

"""Probes on stored frames: notes, onsets, beats, chords and keys over time."""

"""Encoders of audio: loaders, forward passes and adapters."""

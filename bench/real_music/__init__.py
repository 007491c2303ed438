"""Freely licensed game music from Debian packages, as a real library to measure on."""

"""Benchmarks: each prints a table of ratios from one run.  Never part of the tests: machines are noisy."""

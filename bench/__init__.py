"""Benchmarks: each compares ways in one run, and rewrites its table and its ratios under `bench/results/`."""

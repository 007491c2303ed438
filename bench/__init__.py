"""Benchmarks.  Each compares methods within one run, and rewrites its table and its ratios under `bench/results/`."""

from tonelake.store import prepare_process

prepare_process()

"""Report on notes from stored frames (`python -m bench.notes`): rendered chorales, front ends and heads, and basic-pitch."""

"""How well layers and spaces separate the groups of a label column."""

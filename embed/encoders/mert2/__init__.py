"""MERT-v2: a mel front end, three stages of ConvNeXt layers, and conformer blocks."""

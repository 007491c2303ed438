"""musicnn: two convolutional networks trained to tag music, read from their published checkpoints and run by torch."""

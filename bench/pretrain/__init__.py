"""The recipe of the small MERT in the package, following arXiv 2306.00107: music that is generated or read from scores,
played by synthetic instruments; targets from two teachers; masked prediction; and the checkpoint in the hub's format.

    python -m bench.pretrain --work /tmp/small          # seeded, resumable; ends by writing embed/encoders/small
    python -m bench.small                               # evaluation: bench/results/small.md, and the model card
"""

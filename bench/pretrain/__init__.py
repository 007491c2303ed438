"""The recipe of the small MERT that ships with the package, by the way of arXiv 2306.00107: music made up or read from
scores, played by made-up instruments, targets from two teachers, masked prediction, and the checkpoint in the hub's form.

    python -m bench.pretrain --work /tmp/small          # seeded, resumable; ends by writing embed/small
    python -m bench.small                               # what it is worth: bench/results/small.md, and the model card
"""

"""`python -m bench.pretrain`: train, or resume training, and write the checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.pretrain.music import read_corpus
from bench.pretrain.training import Recipe, export, train

SHIPPED = Path(__file__).parents[2] / "embed" / "encoders" / "small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip())
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, teachers, checkpoint and log")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder for the trained checkpoint")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--until", type=int, help="stop at this step; the command can be repeated to resume")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that make examples")
    given = parser.parse_args()

    import torch

    if given.device == "cpu":
        torch.set_num_threads(1)         # the other core makes examples: a fifth faster than alternating on two
    given.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=given.steps, seed=given.seed)
    corpus = read_corpus(given.work / "corpus.npz")
    print(f"{len(corpus)} pieces of the corpus; {recipe.steps * recipe.batch:,} examples in all", flush=True)
    model = train(recipe, corpus, given.work, device=given.device, workers=given.workers, until=given.until)
    print(f"{export(model, recipe, given.out, given.work) / 1e6:.1f} MB in {given.out}")


if __name__ == "__main__":
    main()

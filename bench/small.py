"""Evaluate the small MERT: retrieval of pieces and linear probes, layer by layer, on held-out music and timbres.

Every clip is four bars of a chorale whose tune was held out of training, played by instruments of held-out families, different
ones for each clip; `random` has the same shape and random weights.  Writes `bench/results/small.*` and the model card.

    python -m bench.small
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
from safetensors import safe_open

import tonelake
from bench.pretrain.__main__ import SHIPPED
from bench.pretrain.examples import RATE, play
from bench.pretrain.music import OTHERS, held_out_chorales
from bench.pretrain.timbres import HELD_OUT
from bench.pretrain.training import Recipe, build, export
from bench.report import circumstances, table, write_results
from tonelake.ingest.chorale_scores import Score
from tonelake.ingest.datasets.chorales import clip_row, windows
from tonelake.ingest.scan import clip_id, file_digest
from tonelake.store.table_reading import in_list

BARS = 4
TUNE_PIECES = 3                          # pieces that a tune needs to be included
TASKS = {                                # name: (column, what, split)
    "piece": ("piece", "mAP", ""),
    "key": ("key", "accuracy", "folds:5:tune"),
    "meter": ("meter", "balanced accuracy", "folds:5:tune"),
    "tune": ("tune", "accuracy", "folds:5:track"),
}
FIGURE = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}
ENCODERS = ("random", "spectral", "small")


def make_clips(lake: Any, scores: list[Score], folder: Path, seed: int = 0) -> None:
    """Write one file per piece, of consecutive windows without overlap, with one row for each window.

    The voices of a clip share an instrument family or not, at random.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    families = list(HELD_OUT.values())
    for score in scores:
        sounds = []
        for start, length in windows(score, BARS, BARS):
            seconds = length * score.quarter_s
            notes = score.window(start, length)
            notes[:, :2] *= score.quarter_s
            voice = np.argsort(np.argsort(notes[:, 2], kind="stable")) * 4 // max(len(notes), 1)       # by pitch
            tones = [families[int(rng.integers(len(families)))](rng) for _ in range(1 if rng.random() < 0.5 else 4)]
            sound = play(np.column_stack([notes, voice]), tones, np.exp(rng.uniform(-0.7, 0.2, 4)), seconds, RATE)
            sounds.append((start, length, 0.8 * sound / max(float(np.abs(sound).max()), 1e-6)))
        path = folder / f"{score.piece}.flac"
        soundfile.write(path, np.concatenate([sound for _, _, sound in sounds]), RATE)
        digest, begin = file_digest(path), 0
        for start, length, sound in sounds:
            begin_s, seconds = begin / RATE, len(sound) / RATE
            rows.append(clip_row(score, start, length) | {
                "clip_id": clip_id(digest, begin_s, seconds), "source": str(path), "digest": digest, "start_s": begin_s,
                "duration_s": seconds, "cut": f"{BARS}bars",
            })
            begin += len(sound)
    lake.clips.add(pl.DataFrame(rows, infer_schema_length=None))


def random_twin(folder: Path, seed: int = 100) -> Path:
    """Write a checkpoint of equal shape with untrained weights."""
    recipe = Recipe(seed=seed)
    export(build(recipe, filters=False), recipe, folder)
    return folder


def measure(lake: Any, spaces: dict[str, str]) -> pl.DataFrame:
    """Return one row for each encoder, task and layer: value, low, high, at 95 %, and whether the layer is chosen (`best`).

    The figure of a chosen layer is of clips that took no part in the choice: probes choose on validation clips, and retrieval
    is cross-fitted, so that its chosen layer has a figure of its own (`held_out`).
    """
    rows = []
    for encoder, space in spaces.items():
        for task, (column, what, split) in TASKS.items():
            if not split:
                layers = lake.layers(column, space=space)
                found = layers.table.select(
                    "name", "best", value="map", low="map_low", high="map_high", held_out=pl.lit(layers.held_out.value),
                    held_out_low=pl.lit(layers.held_out.low), held_out_high=pl.lit(layers.held_out.high),
                )
            else:
                some = in_list("tune", frequent_tunes(lake)) if task == "tune" else None
                run, = lake.probe(
                    column, space=space, split=split, rates=(1e-3, 1e-2), decays=(0.0, 1e-3), seeds=1, epochs=60, where=some,
                    class_weights="balanced" if "balanced" in what else "none", name=f"{encoder}-{task}",
                )
                key = FIGURE[what]
                found = run.table("layers").select(
                    "name", "best", value=key, low=f"{key}_low", high=f"{key}_high", held_out=key, held_out_low=f"{key}_low",
                    held_out_high=f"{key}_high",
                )
            rows.append(found.with_columns(encoder=pl.lit(encoder), task=pl.lit(task)))
            print(encoder, task, found.filter("best").to_dicts(), flush=True)
    return pl.concat(rows).rename({"name": "layer"})


def frequent_tunes(lake: Any) -> list[str]:
    pieces = lake.clips.read().group_by("tune").agg(pl.col("piece").n_unique())
    return sorted(pieces.filter(pl.col("piece") >= TUNE_PIECES)["tune"].to_list())


def best_of(found: pl.DataFrame) -> pl.DataFrame:
    """Return each encoder's chosen layer for each task, with its held-out figure."""
    return found.filter("best").select(
        "task", "encoder", "layer", value="held_out", low="held_out_low", high="held_out_high"
    )


def report(found: pl.DataFrame, chance: dict[str, float], majority: dict[str, float]) -> str:
    """Return the tables: chosen layers side by side, then every layer of `small`."""
    best = best_of(found)

    def cell(row: dict[str, Any]) -> str:
        return f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"

    lines = []
    for task, (_, what, _) in TASKS.items():
        row = {r["encoder"]: r for r in best.filter(pl.col("task") == task).to_dicts()}
        lines.append([task, what, *(f"{cell(row[e])}, layer {row[e]['layer']}" for e in ENCODERS), f"{chance[task]:.3f}",
                      f"{majority[task]:.3f}" if task in majority else ""])
    text = table(["task", "figure", *ENCODERS, "chance", "majority"], lines)
    text += (
        "\n95 % intervals, over tracks (a track is a piece).  Layers are chosen on other clips than those of the figure: on "
        "validation clips for probes (key, meter, tune), by cross-fitting for `piece`.  Chance: a random order, or 1 / "
        "classes; majority: always the commonest class.\n"
        "\n## Every layer of `small`\n\n"
    )
    own = found.filter(pl.col("encoder") == "small")
    layers = own["layer"].unique(maintain_order=True).to_list()
    by = {(r["task"], r["layer"]): r for r in own.to_dicts()}
    text += table(["layer", *TASKS], [[layer, *(cell(by[task, layer]) for task in TASKS)] for layer in layers])
    return text


def write_card(folder: Path, results: str, about: dict[str, str]) -> None:
    """Return the model card, from the training log and this benchmark."""
    done = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    recipe, last = done["recipe"], done["log"][-1]
    with safe_open(folder / "model.safetensors", "np") as weights:
        parameters = sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())       # noqa: SIM118
    *others, final = (name.split("_")[0].capitalize() for name in OTHERS)
    hidden, seen = (1 - last[f"checked_cqt_{part}"] / last["checked_variance"] for part in ("hidden", "seen"))
    training = (
        f"{last['step']:,} of the recipe's {recipe['steps']:,} steps, of {recipe['batch']} examples each, in "
        f"{done['hours']:.1f} hours on {done['machine']}, shared with other work, commit {done['commit']}; seed "
        f"{recipe['seed']}; AdamW with a learning rate of at most {recipe['rate']:g}, bfloat16 products. At the end, on "
        "examples of another seed: "
        f"{last['checked_mel_named']:.0%} accuracy for the mel clusters of hidden frames and "
        f"{last['checked_chroma_named']:.0%} for the chroma clusters (chance: under 2 %); {hidden:.0%} of the constant-Q "
        f"spectrum's variance explained in hidden frames, {seen:.0%} in visible ones. "
        "`training.json` has the recipe and the log."
    )
    text = (Path(__file__).parent / "pretrain" / "card.md").read_text(encoding="utf-8").format(
        shape=f"{config['num_hidden_layers']} blocks of {config['hidden_size']}, {config['num_attention_heads']} heads, "
        f"convolutions of {', '.join(map(str, config['conv_dim']))} channels, pre-norm like the 330M model",
        layers=config["num_hidden_layers"] + 1, blocks=config["num_hidden_layers"], parameters=f"{parameters / 1e6:.1f}",
        size=f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f}", examples=f"{last['step'] * recipe['batch']:,}",
        composers=", ".join(others) + f" and {final}", training=training,
        results=f"Measured {about['date']} at commit {about['commit']} on {about['machine']}: {about['clips']}.\n\n"
        + results.replace("## ", "### "),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default=str(SHIPPED), help="a checkpoint folder to evaluate instead of the shipped one")
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--pieces", type=int, help="number of pieces, for a quick check")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        lake = tonelake.open(Path(home) / "lake")
        make_clips(lake, held_out_chorales()[: given.pieces], Path(home) / "clips")
        folders = {"random": str(random_twin(Path(home) / "random")), "spectral": "spectral", "small": given.encoder}
        spaces = {name: lake.embed(folders[name], space=name, window=given.window).space for name in ENCODERS}
        clips = lake.clips.read()
        print(f"{len(clips)} clips of {clips['piece'].n_unique()} pieces", flush=True)
        found = measure(lake, spaces)
        asked = clips.filter(pl.col("tune").is_in(frequent_tunes(lake)))
        columns = {"key": clips["key"], "meter": clips["meter"], "tune": asked["tune"]}
        chance = {task: 1 / values.n_unique() for task, values in columns.items()}
        chance["piece"] = lake.layers("piece", space="small").chance
        majority = {"key": share(clips, "key"), "meter": chance["meter"], "tune": share(asked, "tune")}     # meter: balanced
        about = circumstances("the timbres of the clips, and all weights of `random` (seeded)")
        about["clips"] = (
            f"{len(clips)} clips of {BARS} bars from {clips['piece'].n_unique()} chorales with {clips['tune'].n_unique()} "
            f"held-out tunes; the task `tune` uses the {len(frequent_tunes(lake))} tunes with {TUNE_PIECES} pieces or more"
        )
        text = report(found, chance, majority)
        print(text)
        if not given.dry:
            best = {(r["task"], r["encoder"]): r["value"] for r in best_of(found).to_dicts()}
            others = ENCODERS[:-1]
            ratios = {f"{task}_{other}": best[task, "small"] / best[task, other] for task in TASKS for other in others}
            layers = json.loads(found.write_json())
            write_results("small", "The small MERT on held-out music and timbres", text, about, ratios, layers=layers)
            write_card(Path(given.encoder), text, about)


def share(clips: pl.DataFrame, column: str) -> float:
    """Return the share of the most frequent value."""
    return float(clips[column].value_counts()["count"].max() / len(clips))           # type: ignore[operator, arg-type]


if __name__ == "__main__":
    main()

"""Retrieval of artists, albums and games on real music that anyone can fetch: every layer of musicnn, spectral and small.

The music is freely licensed game music from Debian packages (`bench/real_music`), which apt downloads and does not install.
Two clips of 30 s a song are queries; the clips of the query's own song are left out.  Intervals are a jackknife over artists
(for albums and games over those), a unit left out on both sides of every pair; the layer of an encoder is chosen on other
units than those it is measured on.  Writes `bench/results/real.*` and `docs/real-music.md`.

    python -m bench.real                            # fetches 1.5 GB first, once
    python -m bench.real --debs FOLDER              # packages that were fetched elsewhere
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import tonelake
from bench.real_music.packages import DONE, fetch_music, match_rules, packages, read_rules
from bench.report import circumstances, table, write_results
from tonelake.evaluate import Estimate, Replicates, estimates_as_dict, plural, read_labelled, stack_replicates
from tonelake.index.separation.layer_report import measure_layer
from tonelake.index.separation.pair_set import PairSet, choose_pairs
from tonelake.index.separation.pairs import Separation, crossfit_map, replicates_of_chosen
from tonelake.store import cache_folder

PAGE = Path(__file__).parent.parent / "docs" / "real-music.md"
ENCODERS = ("musicnn", "spectral", "small")      # the first is compared with the others
CLIP_S, CLIPS = 30.0, 2                          # of each song
FEWEST_SONGS, FEWEST_ARTISTS = 300, 40           # of two songs or more, that the figures need


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question: whose clips are to be found among which."""

    name: str
    column: str
    over: str
    across: str = "track"
    within: str | None = None


TASKS = (
    Task(name="artist", column="artist", over="artist"),
    Task(name="artist, other albums", column="artist", over="artist", across="album"),
    Task(name="artist, within one game", column="artist", over="artist", within="game"),
    Task(name="album", column="album", over="album"),
    Task(name="game", column="game", over="game"),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The figures of one encoder in one task."""

    layers: tuple[str, ...]
    measured: list[Separation]
    held_out: Estimate                   # mAP with the layer chosen on other units
    shares: np.ndarray                   # (layer,) how often each was chosen

    @property
    def best(self) -> int:
        return int(np.argmax([one.figures["map"].value for one in self.measured]))

    def replicates(self) -> Replicates:
        """The held-out mAP, and that without each unit."""
        figures = stack_replicates([one.figures["map"] for one in self.measured])
        return replicates_of_chosen(self.held_out.value, figures, self.shares)


def write_labels(music: Path, file: Path) -> None:
    """Write a table of artist and game for every file: the artist where tags are silent or wrong, the package as the game."""
    artists = read_rules("artists.tsv")
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "game", "artist"])
        for path in sorted(music.rglob("*")):
            if path.is_file() and path.name != DONE:
                inside = PurePosixPath(path.relative_to(music).as_posix())
                package = inside.parts[0]
                artist = match_rules(artists, package, inside.relative_to(package)) or tagged_artist(path)
                writer.writerow([str(path), game_of(package), artist])


def tagged_artist(path: Path) -> str:
    from tonelake.ingest.tags import read_tags

    return read_tags(path).get("artist", "")


def game_of(package: str) -> str:
    """Return the game of a package.

    >>> game_of("wesnoth-1.16-music"), game_of("fretsonfire-songs-muldjord"), game_of("zaz-data")
    ('wesnoth', 'fretsonfire', 'zaz')
    """
    return package.split("-")[0]


def make_lake(music: Path, where: Path) -> tuple[tonelake.Lake, dict[str, str]]:
    """Ingest the music and embed it by every encoder; return the lake, and the space of each.  Done work is kept."""
    where.mkdir(parents=True, exist_ok=True)
    labels = where / "labels.csv"
    write_labels(music, labels)
    lake = tonelake.open(where / "lake")
    print(lake.ingest_folder(music, seconds=CLIP_S, per_track=CLIPS, labels=labels))
    spaces = {}
    for encoder in ENCODERS:
        done = lake.embed(encoder)
        print(done, flush=True)
        spaces[encoder] = done.space
    return lake, spaces


def check_size(lake: tonelake.Lake) -> tuple[int, int]:
    """Return the numbers of songs with an artist, and of artists with two or more.  Raises SystemExit if they are too few."""
    songs = lake.clips.read(["artist", "track"], where="artist IS NOT NULL").unique()
    artists = int((songs["artist"].value_counts()["count"] >= 2).sum())
    if len(songs) < FEWEST_SONGS or artists < FEWEST_ARTISTS:
        raise SystemExit(
            f"{len(songs)} songs and {artists} artists of two or more: {FEWEST_SONGS} and {FEWEST_ARTISTS} are needed. "
            "Fetch the packages that are missing"
        )
    return len(songs), artists


def measure(lake: tonelake.Lake, spaces: dict[str, str], task: Task) -> tuple[PairSet, dict[str, Found]]:
    """Measure every layer of every encoder on the same pairs."""
    labelled = read_labelled(lake, lake.spaces.get(spaces[ENCODERS[0]]), task.column, "artist IS NOT NULL")
    pairs = choose_pairs(lake, labelled, across=task.across, over=task.over, within=task.within)
    found = {}
    for encoder in ENCODERS:
        space = lake.spaces.get(spaces[encoder])
        measured = [measure_layer(lake, space, number, pairs) for number in range(len(space.layers))]
        chosen, held_out = crossfit_map(measured, pairs)
        found[encoder] = Found(layers=space.layers, measured=measured, held_out=held_out, shares=chosen.shares)
    return pairs, found


def difference(first: Found, second: Found) -> Estimate:
    """Return the held-out mAP of one encoder less that of another, paired over the units."""
    return (first.replicates() - second.replicates()).estimate()


def report(results: dict[str, tuple[PairSet, dict[str, Found]]]) -> str:
    """Return the tables of the report in Markdown."""
    first, *others = ENCODERS
    rows = []
    for task, (pairs, found) in results.items():
        rows.append([
            task, f"{len(pairs.rows):,}", f"{pairs.chances['map']:.3f}",
            *(f"{found[encoder].held_out}, {found[encoder].layers[found[encoder].best]}" for encoder in ENCODERS),
            *(signed(difference(found[first], found[other])) for other in others), str(pairs.units),
        ])
    text = "mAP with the layer of each encoder chosen on other units than those it is measured on, and the layer that is best "
    text += "on all of them:\n\n"
    text += table(["task", "queries", "chance", *ENCODERS, *(f"{first} − {other}" for other in others), "intervals"], rows)
    for encoder in ENCODERS:
        layers = next(iter(results.values()))[1][encoder].layers
        text += f"\n## Every layer of {encoder}\n\n" + table(["layer", *results], [
            [name, *(str(found[encoder].measured[number].estimate("map")) for _, found in results.values())]
            for number, name in enumerate(layers)
        ])
    return text


def signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def figures(results: dict[str, tuple[PairSet, dict[str, Found]]]) -> dict[str, Any]:
    """Return every figure for programs: by task, chance, units, and each encoder's layers, held-out mAP and differences."""
    first, *others = ENCODERS
    return {
        task: {
            "chance": pairs.chances["map"], "queries": len(pairs.rows), "units": str(pairs.units), "left_out": pairs.left_out,
            **{encoder: {
                "layers": estimates_as_dict({
                    name: found[encoder].measured[number].estimate("map") for number, name in enumerate(found[encoder].layers)
                }),
                "best": found[encoder].layers[found[encoder].best],
                **estimates_as_dict({"held_out": found[encoder].held_out}),
            } for encoder in ENCODERS},
            "differences": estimates_as_dict({f"{first} - {o}": difference(found[first], found[o]) for o in others}),
        }
        for task, (pairs, found) in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=cache_folder() / "real-music", help="where music and lake are kept")
    parser.add_argument("--debs", type=Path, help="where packages are, or are downloaded to; default: FOLDER/debs")
    options = parser.parse_args()
    missing = fetch_music(options.folder / "music", options.debs or options.folder / "debs")
    if missing:
        print("packages that apt does not have here, to be put into --debs as apt names them: " + " ".join(missing))
    lake, spaces = make_lake(options.folder / "music", options.folder)
    songs, artists = check_size(lake)
    results = {}
    for task in TASKS:
        results[task.name] = measure(lake, spaces, task)
        print(task.name, {encoder: str(one.held_out) for encoder, one in results[task.name][1].items()}, flush=True)
    about = circumstances("the order of pairs and the folds of the jackknife: seed 0") | {
        "music": f"{songs} songs with an artist, {artists} artists of two or more, from {len(packages()) - len(missing)} "
        f"Debian packages of freely licensed game music; {CLIPS} clips of {CLIP_S:g} s a song",
    }
    text = report(results)
    ratios = {
        f"{plural(task.column)}_{ENCODERS[0]}_vs_{other}": results[task.name][1][ENCODERS[0]].held_out.value
        / results[task.name][1][other].held_out.value for task in TASKS if task.name == task.column for other in ENCODERS[1:]
    }
    write_results("real", "Retrieval on real music", text, about, ratios, tasks=figures(results))
    PAGE.write_text(page(text, about), encoding="utf-8")


def page(text: str, about: dict[str, str]) -> str:
    facts = "".join(f"- {key}: {value}\n" for key, value in about.items())
    return (
        "# Encoders on real music\n\n"
        "How well each layer finds other songs of the same artist, album and game, on music that anyone can fetch. This page "
        "is written by `make bench-real`.\n\n" + facts + "\n"
        "A query is a clip; the answer ranks the clips of all other songs by cosine. *Other albums* leaves out the songs of "
        "the query's album; *within one game* compares only songs of one game, whose artists wrote for the same purpose. "
        "Intervals are at 95 %, by a jackknife that leaves out one unit on both sides of every pair. Stems, remixes and "
        "versions of other pieces are not in the set (`bench/real_music/excluded.tsv`).\n\n" + text
    )


if __name__ == "__main__":
    main()

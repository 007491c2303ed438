"""Compute the constants by which `spectral` standardises its families for layer `all`, from a lake of real music.

    tonelake ingest folder MUSIC --seconds 30 --per-track 2 --lake LAKE
    tonelake embed --encoder spectral --lake LAKE
    python -m bench.spectral_scale LAKE --root MUSIC --music "where the music comes from"

Mean and standard deviation of each dimension over the clips' means.  Clips shorter than 30 s (sound effects) are left out, and
every folder below MUSIC has equal weight, so a large collection does not decide alone.  The result is written to
`embed/encoders/spectral_scale.json`; other constants are another encoder, so raise `REVISION` in `embed/encoders/spectral.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

import tonelake
from tonelake.embed.encoders.spectral import FAMILIES, SCALE
from tonelake.ingest import to_path

SECONDS = 30.0
DIGITS = 6                               # significant digits of a constant
# Least standard deviation.  Descriptors have a size of about 1; some (mean slopes, lag 0 of the rhythm) hardly vary between
# clips, and magnified they would drown maxima and frames.
FLOOR = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", help="a lake with a spectral space")
    parser.add_argument("--root", type=Path, required=True, help="the folder MUSIC, whose sub-folders have equal weight")
    parser.add_argument("--music", required=True, help="a sentence about the music, kept with the constants")
    parser.add_argument("--out", type=Path, default=SCALE)
    given = parser.parse_args()
    lake = tonelake.open(given.lake, create=False, progress=False)
    clips = lake.clips.read(["clip_id", "source", "duration_s"], where=f"duration_s >= {SECONDS - 0.1}")
    clips = clips.with_columns(
        folder=pl.col("source").map_elements(lambda source: group_of(to_path(source), given.root), return_dtype=pl.String)
    )
    share = 1.0 / clips.join(clips.group_by("folder").len(), on="folder", how="left", maintain_order="left")["len"].to_numpy()
    vectors = lake.vectors("spectral")
    found: dict[str, dict[str, list[float]]] = {"mean": {}, "std": {}}
    for family in FAMILIES:
        values = vectors.take(clips["clip_id"].to_list(), family).vectors.astype(np.float64)     # (clip, dim)
        mean = np.average(values, axis=0, weights=share)
        std = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=share))
        found["mean"][family] = [rounded(value) for value in mean]
        found["std"][family] = [rounded(value) for value in np.maximum(std, FLOOR)]
    about = {"music": given.music, "clips": len(clips), "seconds": SECONDS, "folders": clips["folder"].n_unique()}
    given.out.write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
    print(f"{given.out}: {len(clips)} clips of {about['folders']} folders")


def group_of(path: Path, root: Path) -> str:
    """The folder directly below `root` that contains a file."""
    return path.absolute().relative_to(root.absolute()).parts[0]


def rounded(value: float) -> float:
    """A value with a few significant digits."""
    return float(f"{value:.{DIGITS}g}")


if __name__ == "__main__":
    main()

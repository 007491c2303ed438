"""A vocabulary of sounds: centres of the frames of one layer, found by k-means; a frame's token is its nearest centre.

    vocabularies/<space>/<name>.safetensors   centres (k, dim) float32, and in its header all that is said of them

Frames are read once, in the table's order, and a seeded sample of them is kept (Vitter 1985, algorithm R), so memory does
not grow with the lake.  Centres are found by FAISS in two stages: most passes over a part of the sample, the last ones over
all of it, which comes to the same distortion in a fraction of the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.faiss import require_faiss
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, LakeError, Space, SpaceMismatch, layer_with_frames

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MOST_TOKENS = 65_535                     # that a stored token can tell apart
FRAMES_A_TOKEN = 128                     # in the sample: more change centres by less than another seed does
PART_A_TOKEN, PART_PASSES, LAST_PASSES = 24, 8, 3
DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True)
class Vocabulary:
    """Centres, and how well they stand for the frames they were found in."""

    name: str
    space: str
    fingerprint: str                     # of the space
    layer: str
    metric: str                          # one of DISTANCES
    seed: int
    frames: int                          # in the sample
    distortion: float                    # mean squared distance of a frame to its centre; of cosine: of unit vectors
    explained: float                     # share of the frames' variance that the centres hold
    used: int                            # tokens that occur in the sample
    perplexity: float                    # tokens as if all were equally common: exp of their entropy
    made: str
    centres: np.ndarray = field(repr=False, compare=False)           # (k, dim) float32

    @property
    def digest(self) -> str:
        """What tells these centres from all others."""
        told = f"{self.fingerprint}{self.layer}{self.metric}".encode()
        return blake2b(self.centres.tobytes() + told, digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.centres)

    def tokens_of(self, states: np.ndarray) -> np.ndarray:
        """(frame, dim) -> (frame,) uint16: the number of the nearest centre, the lower one of two that are equally near.

        Raises SpaceMismatch where the width is another.
        """
        if states.ndim != 2 or states.shape[1] != self.centres.shape[1]:
            raise SpaceMismatch(
                f"vocabulary {self.name!r} is of frames {self.centres.shape[1]} wide, these have shape {states.shape}: use "
                f"frames of layer {self.layer} of space {self.space!r}"
            )
        states = np.ascontiguousarray(states, np.float32)
        if self.metric == "cosine":
            states = unit(states)
        if not len(states):
            return np.empty(0, np.uint16)
        return nearest_centre(states, self.centres)[0].astype(np.uint16)

    def check(self, space: Space, layer: str | None = None) -> None:
        """Raise SpaceMismatch unless frames of this space (and layer) are what the vocabulary is of."""
        if space.fingerprint != self.fingerprint or (layer is not None and layer != self.layer):
            other = f"layer {layer} of space {space.name!r}" if layer is not None else f"space {space.name!r}"
            raise SpaceMismatch(
                f"vocabulary {self.name!r} is of layer {self.layer} of space {self.space!r}, and these are frames of {other}: "
                f"fit one with `tonelake tokens fit --space {space.name}`"
            )

    def __str__(self) -> str:
        return (
            f"vocabulary {self.name} of layer {self.layer} of {self.space}: {len(self):,} tokens from {self.frames:,} frames, "
            f"{self.used:,} used, perplexity {self.perplexity:,.0f}; {self.metric} distortion {self.distortion:.4g}, "
            f"{self.explained:.1%} of the variance explained"
        )


def nearest_centre(states: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frame,) the number of the nearest centre, and the squared distance to it."""
    faiss = require_faiss()
    distances, found = faiss.knn(states, centres, 1)
    return found[:, 0], distances[:, 0]


def fit_vocabulary(
    lake: Lake, *, k: int = 2048, space: str | None = None, layer: int | str | None = None, metric: str = "euclidean",
    name: str | None = None, where: str | None = None, seed: int = 0, progress: Any = lambda items, total, label: items,
) -> Vocabulary:
    """Find k tokens in the stored frames of a layer, and keep them with the lake.

    `layer`: by default the space's, or the only one of which frames are stored; `name`: by default LAYER-K, with the metric
    where it is not Euclidean.  One of the same name is replaced.  Raises InputError where frames are fewer than tokens.
    """
    if metric not in DISTANCES:
        raise InputError(f"no metric {metric!r}: choose {' or '.join(DISTANCES)}")
    if not 2 <= k <= MOST_TOKENS:
        raise InputError(f"{k} tokens: ask for 2 to {MOST_TOKENS:,}")
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    called = name or f"{chosen.layers[number]}-{k}" + ("" if metric == "euclidean" else f"-{metric}")
    if not NAME.fullmatch(called):
        raise InputError(f"{called!r} cannot name a vocabulary: use letters, digits, '.', '-' and '_'")
    sample = sample_frames(frames_of_clips(lake, chosen, number, where, progress), FRAMES_A_TOKEN * k, seed)
    if len(sample) < k:
        raise InputError(
            f"{len(sample):,} frames of layer {chosen.layers[number]} are stored, too few for {k:,} tokens: embed more with "
            f"`tonelake embed --space {chosen.name} --frames {chosen.layers[number]}`, or ask for fewer"
        )
    if metric == "cosine":
        sample = unit(sample)
    centres = find_centres(sample, k, seed, spherical=metric == "cosine")
    found, distances = nearest_centre(sample, centres)
    counts = np.bincount(found, minlength=k)
    shares = counts[counts > 0] / len(sample)
    spread = float(np.square(sample - sample.mean(axis=0), dtype=np.float64).sum(axis=1).mean())
    distortion = float(distances.mean(dtype=np.float64))
    made = Vocabulary(
        called, chosen.name, chosen.fingerprint, chosen.layers[number], metric, seed, len(sample), distortion,
        1 - distortion / spread if spread > 0 else 1.0, int((counts > 0).sum()),
        float(np.exp(-(shares * np.log(shares)).sum())),
        datetime.now(UTC).isoformat(timespec="seconds"), centres,
    )
    write_vocabulary(lake, made)
    return made


def frames_of_clips(lake: Lake, space: Space, layer: int, where: str | None, progress: Any) -> Iterable[np.ndarray]:
    """The stored frames of clips, those that a filter keeps, a clip at a time."""
    stored = lake.frames(space)
    ids = stored.complete([layer])
    wanted = set(ids) if where is None else set(ids) & set(lake.clips.ids(where))
    for one in progress(stored.each(None, layer), len(ids), f"sampling frames of layer {space.layers[layer]}"):
        if one.clip_id in wanted:
            yield one.states


def sample_frames(parts: Iterable[np.ndarray], most: int, seed: int) -> np.ndarray:
    """(at most `most`, dim) float32: frames drawn alike from all parts, without knowing how many there will be."""
    rng = np.random.default_rng(seed)
    kept: np.ndarray | None = None
    seen = 0
    for part in parts:
        if not len(part):
            continue
        if kept is None:
            kept = np.empty((most, part.shape[1]), np.float16)
        fill = min(len(part), max(0, most - seen))
        kept[seen : seen + fill] = part[:fill]
        rest = np.arange(seen + fill, seen + len(part))
        place = (rng.random(len(rest)) * (rest + 1)).astype(np.int64)            # frame n replaces one with chance most / n
        taken = place < most
        kept[place[taken]] = part[fill:][taken]
        seen += len(part)
    if kept is None:
        return np.empty((0, 0), np.float32)
    return kept[: min(seen, most)].astype(np.float32)


def find_centres(sample: np.ndarray, k: int, seed: int, *, spherical: bool = False) -> np.ndarray:
    """(k, dim) float32 by Lloyd's algorithm in FAISS; of unit length where `spherical`."""
    faiss = require_faiss()
    rng = np.random.default_rng(seed)
    centres: np.ndarray | None = None
    for rows, passes in ((min(PART_A_TOKEN * k, len(sample)), PART_PASSES), (len(sample), LAST_PASSES)):
        part = sample if rows == len(sample) else sample[np.sort(rng.choice(len(sample), rows, replace=False))]
        means = faiss.Kmeans(
            sample.shape[1], k, niter=passes, seed=int(seed) + 1, spherical=spherical, min_points_per_centroid=1,
            max_points_per_centroid=len(sample),
        )
        means.train(np.ascontiguousarray(part), init_centroids=centres)
        centres = means.centroids.copy()
    assert centres is not None
    return centres


# -- on disk


def write_vocabulary(lake: Lake, made: Vocabulary) -> None:
    from safetensors.numpy import save_file

    about = {key: value for key, value in asdict(made).items() if key != "centres"}

    def write(path: Path) -> None:
        save_file({"centres": made.centres}, path, metadata={"vocabulary": json.dumps(about)})

    lake.files(f"vocabularies/{made.space}").put(f"{made.name}.safetensors", write)


def read_vocabulary(lake: Lake, name: str | None = None, *, space: str | None = None) -> Vocabulary:
    """A vocabulary of a space by name; the only one there is, where none is named.  Raises InputError."""
    chosen = lake.spaces.get(space)
    files = lake.files(f"vocabularies/{chosen.name}")
    names = [file.removesuffix(".safetensors") for file in files.names(".safetensors")]
    if not names:
        raise InputError(f"space {chosen.name!r} has no vocabulary: run `tonelake tokens fit --space {chosen.name}`")
    if (name is None and len(names) > 1) or (name is not None and name not in names):
        which = f"no vocabulary {name!r}" if name is not None else f"{len(names)} vocabularies"
        raise InputError(f"{which} in space {chosen.name!r}: choose {', '.join(names[:8])} with --vocabulary")
    called = name or names[0]
    from safetensors import SafetensorError, safe_open

    with files.fetched(f"{called}.safetensors") as path:
        try:
            assert path is not None
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["vocabulary"])
                found = Vocabulary(**about, centres=file.get_tensor("centres"))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise LakeError(f"vocabulary {called!r} cannot be read ({error}): fit it again") from error
    if not np.isfinite(found.centres).all() or found.centres.ndim != 2:
        raise LakeError(f"vocabulary {called!r} holds no usable centres: fit it again")
    found.check(chosen)
    return found


def list_vocabularies(lake: Lake) -> pl.DataFrame:
    """One row a vocabulary: how large, how good, and how many clips have tokens in it."""
    rows = []
    for space in lake.spaces.all():
        for file in lake.files(f"vocabularies/{space.name}").names(".safetensors"):
            one = read_vocabulary(lake, file.removesuffix(".safetensors"), space=space.name)
            rows.append({
                "vocabulary": one.name, "space": space.name, "layer": one.layer, "tokens": len(one), "metric": one.metric,
                "frames": one.frames, "used": one.used, "perplexity": one.perplexity, "explained": one.explained,
                "distortion": one.distortion, "clips": len(lake.tokens(space).ids(one.digest)), "made": one.made,
            })
    schema = {
        "vocabulary": pl.String, "space": pl.String, "layer": pl.String, "tokens": pl.Int64, "metric": pl.String,
        "frames": pl.Int64, "used": pl.Int64, "perplexity": pl.Float64, "explained": pl.Float64, "distortion": pl.Float64,
        "clips": pl.Int64, "made": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)

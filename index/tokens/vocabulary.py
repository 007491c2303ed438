"""Fit a vocabulary of sounds: k-means centres of the frames of one layer; a frame's token is its nearest centre.

    vocabularies/<space>/<name>.safetensors   centres (k, dim) float32, with the other fields of `Vocabulary` in the header

Frames are read once, in the table's order, and a seeded sample of them is kept (Vitter 1985, algorithm R), so memory does
not grow with the lake.  Centres are found by FAISS in two stages: most passes over a part of the sample, the last ones over
all of it, which reaches equal distortion in a fraction of the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.index.search.faiss import check_found, require_faiss
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, LakeError, Space, SpaceMismatch, layer_with_frames

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MOST_TOKENS = 65_535                     # limit of a stored uint16 token
FRAMES_PER_TOKEN = 128                   # in the sample; more change the centres less than another seed does
PART_PER_TOKEN, PART_PASSES, LAST_PASSES = 24, 8, 3
DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Centres, with figures of how well they represent the sampled frames."""

    name: str
    space: str
    fingerprint: str                     # of the space
    layer: str
    metric: str                          # one of DISTANCES
    seed: int
    frames: int                          # in the sample
    distortion: float                    # mean squared distance of a frame to its centre; for cosine, of unit vectors
    explained: float                     # share of the frames' variance that the centres explain
    used: int                            # tokens that occur in the sample
    perplexity: float                    # effective number of tokens: exp of their entropy
    made: str                            # date and time, UTC
    centres: np.ndarray = field(repr=False, compare=False)           # (k, dim) float32

    @property
    def digest(self) -> str:
        """A hash that identifies these centres."""
        origin = f"{self.fingerprint}{self.layer}{self.metric}".encode()
        return blake2b(self.centres.tobytes() + origin, digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.centres)

    def tokens_of(self, states: np.ndarray) -> np.ndarray:
        """Map (frame, dim) to (frame,) uint16: the number of the nearest centre, the lower of two equally near ones.

        Raises SpaceMismatch for frames of another width.
        """
        if states.ndim != 2 or states.shape[1] != self.centres.shape[1]:
            raise SpaceMismatch(
                f"vocabulary {self.name!r} is for frames {self.centres.shape[1]} wide, these have shape {states.shape}. Use "
                f"frames of layer {self.layer} of space {self.space!r}"
            )
        states = np.ascontiguousarray(states, np.float32)
        if self.metric == "cosine":
            states = unit(states)
        if not len(states):
            return np.empty(0, np.uint16)
        return nearest_centre(states, self.centres)[0].astype(np.uint16)

    def check(self, space: Space, layer: str | None = None) -> None:
        """Raise SpaceMismatch unless the vocabulary was fitted to frames of this space (and layer)."""
        if space.fingerprint != self.fingerprint or (layer is not None and layer != self.layer):
            other = f"layer {layer} of space {space.name!r}" if layer is not None else f"space {space.name!r}"
            raise SpaceMismatch(
                f"vocabulary {self.name!r} is for layer {self.layer} of space {self.space!r}, and these are frames of {other}. "
                f"Fit one with `tonelake tokens fit --space {space.name}`"
            )

    def __str__(self) -> str:
        return (
            f"vocabulary {self.name} of layer {self.layer} of {self.space}: {len(self):,} tokens from {self.frames:,} frames, "
            f"{self.used:,} used, perplexity {self.perplexity:,.0f}; {self.metric} distortion {self.distortion:.4g}, "
            f"{self.explained:.1%} of the variance explained"
        )


def nearest_centre(states: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (frame,) numbers of the nearest centres, and the squared distances to them.

    Raises InputError if a state is not finite.
    """
    faiss = require_faiss()
    distances, found = faiss.knn(states, centres, 1)
    check_found(found)
    return found[:, 0], distances[:, 0]


def fit_vocabulary(
    lake: Lake, *, k: int = 2048, space: str | None = None, layer: int | str | None = None, metric: str = "euclidean",
    name: str | None = None, where: str | None = None, seed: int = 0,
) -> Vocabulary:
    """Fit a vocabulary of k tokens to the stored frames of a layer, and store it with the lake.

    `layer`: by default the space's default layer, or the first one with stored frames; `name`: by default LAYER-K, plus the
    metric if it is not Euclidean.  A vocabulary of that name is replaced.  Raises InputError for fewer frames than tokens.
    """
    if metric not in DISTANCES:
        raise InputError(f"no metric {metric!r}: choose {' or '.join(DISTANCES)}")
    if not 2 <= k <= MOST_TOKENS:
        raise InputError(f"{k} tokens: must be 2 to {MOST_TOKENS:,}")
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    final_name = name or default_vocabulary_name(chosen.layers[number], k, metric)
    if not NAME.fullmatch(final_name):
        raise InputError(f"{final_name!r} cannot name a vocabulary. Use letters, digits, '.', '-' and '_'")
    sample = sample_frames(frames_of_clips(lake, chosen, number, where), FRAMES_PER_TOKEN * k, seed)
    if len(sample) < k:
        raise InputError(
            f"{len(sample):,} frames of layer {chosen.layers[number]} are stored, too few for {k:,} tokens. Embed more with "
            f"`tonelake embed --space {chosen.name} --frames {chosen.layers[number]}`, or choose fewer tokens"
        )
    if metric == "cosine":
        sample = unit(sample)
    centres = find_centres(sample, k, seed, spherical=metric == "cosine")
    found, distances = nearest_centre(sample, centres)
    counts = np.bincount(found, minlength=k)
    shares = counts[counts > 0] / len(sample)
    spread = float(np.square(sample - sample.mean(axis=0), dtype=np.float64).sum(axis=1).mean())
    distortion = float(distances.mean(dtype=np.float64))
    fitted = Vocabulary(
        name=final_name, space=chosen.name, fingerprint=chosen.fingerprint, layer=chosen.layers[number], metric=metric,
        seed=seed, frames=len(sample), distortion=distortion, explained=1 - distortion / spread if spread > 0 else 1.0,
        used=int((counts > 0).sum()), perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
        made=datetime.now(UTC).isoformat(timespec="seconds"), centres=centres,
    )
    write_vocabulary(lake, fitted)
    return fitted


def default_vocabulary_name(layer: str, k: int, metric: str) -> str:
    """
    >>> default_vocabulary_name("7", 2048, "euclidean"), default_vocabulary_name("7", 64, "cosine")
    ('7-2048', '7-64-cosine')
    """
    return f"{layer}-{k}" + ("" if metric == "euclidean" else f"-{metric}")


def frames_of_clips(lake: Lake, space: Space, layer: int, where: str | None) -> Iterable[np.ndarray]:
    """Yield the stored frames of the clips that a filter keeps, one clip at a time."""
    stored = lake.frames(space)
    ids = stored.complete([layer])
    wanted = set(ids) & set(lake.clips.ids(where))
    for one in lake.progress(stored.each(None, layer), len(ids), f"sampling frames of layer {space.layers[layer]}"):
        if one.clip_id in wanted:
            yield one.states


def sample_frames(parts: Iterable[np.ndarray], most: int, seed: int) -> np.ndarray:
    """Return (at most `most`, dim) float32 frames sampled uniformly from a stream of unknown length."""
    rng = np.random.default_rng(seed)
    kept: np.ndarray | None = None
    count = 0
    for part in parts:
        if not len(part):
            continue
        if kept is None:
            kept = np.empty((most, part.shape[1]), np.float16)
        fill = min(len(part), max(0, most - count))
        kept[count : count + fill] = part[:fill]
        rest = np.arange(count + fill, count + len(part))
        slot = (rng.random(len(rest)) * (rest + 1)).astype(np.int64)             # frame n is kept with probability most / n
        taken = slot < most
        kept[slot[taken]] = part[fill:][taken]
        count += len(part)
    if kept is None:
        return np.empty((0, 0), np.float32)
    return kept[: min(count, most)].astype(np.float32)


def find_centres(sample: np.ndarray, k: int, seed: int, *, spherical: bool = False) -> np.ndarray:
    """Find (k, dim) float32 centres by Lloyd's algorithm in FAISS; of unit length if `spherical`."""
    faiss = require_faiss()
    rng = np.random.default_rng(seed)
    centres: np.ndarray | None = None
    for rows, passes in ((min(PART_PER_TOKEN * k, len(sample)), PART_PASSES), (len(sample), LAST_PASSES)):
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


def write_vocabulary(lake: Lake, vocabulary: Vocabulary) -> None:
    """Store a vocabulary with the lake."""
    from safetensors.numpy import save_file

    about = {key: value for key, value in asdict(vocabulary).items() if key != "centres"}

    def write(path: Path) -> None:
        save_file({"centres": vocabulary.centres}, path, metadata={"vocabulary": json.dumps(about)})

    lake.files(f"vocabularies/{vocabulary.space}").put(f"{vocabulary.name}.safetensors", write)


def read_vocabulary(lake: Lake, name: str | None = None, *, space: str | None = None) -> Vocabulary:
    """Read a vocabulary of a space by name, or its only one.  Raises InputError if there is none, or no unique one."""
    chosen = lake.spaces.get(space)
    files, names = lake.files(f"vocabularies/{chosen.name}"), vocabulary_names(lake, chosen.name)
    if not names:
        raise InputError(f"space {chosen.name!r} has no vocabulary. Run `tonelake tokens fit --space {chosen.name}`")
    if (name is None and len(names) > 1) or (name is not None and name not in names):
        which = f"no vocabulary {name!r}" if name is not None else f"{len(names)} vocabularies"
        raise InputError(f"{which} in space {chosen.name!r}. Choose {', '.join(names[:8])} with --vocabulary")
    final_name = name or names[0]
    from safetensors import SafetensorError, safe_open

    with files.fetched(f"{final_name}.safetensors") as path:
        try:
            assert path is not None
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["vocabulary"])
                found = Vocabulary(**about, centres=file.get_tensor("centres"))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise LakeError(f"vocabulary {final_name!r} cannot be read ({error}): fit it again") from error
    if not np.isfinite(found.centres).all() or found.centres.ndim != 2:
        raise LakeError(f"vocabulary {final_name!r} holds no usable centres: fit it again")
    found.check(chosen)
    return found


def vocabulary_names(lake: Lake, space: str) -> list[str]:
    """The names of a space's vocabularies."""
    return [file.removesuffix(".safetensors") for file in lake.files(f"vocabularies/{space}").names(".safetensors")]


def find_vocabulary(lake: Lake, name: str | None = None, *, space: str | None = None) -> Vocabulary:
    """Read a vocabulary by name, wherever it is: in `space` if given, else in the default space, else in the only space that
    has one of this name.  `name` can also be `space/name`; None is the only vocabulary of the space.

    Raises InputError if there is none, or if several other spaces have it.
    """
    if name is not None and "/" in name:
        own, _, name = name.partition("/")
        if space is not None and space != own:
            raise InputError(f"vocabulary {own}/{name}: is not in space {space!r}. Leave out --space, or name another one")
        space = own
    if name is None or space is not None:
        return read_vocabulary(lake, name, space=space)
    spaces = [one.name for one in lake.spaces.all() if name in vocabulary_names(lake, one.name)]
    default = lake.spaces.default(lake.spaces.all())[0].name if spaces else None
    if default not in spaces and len(spaces) > 1:
        listed = ", ".join(f"{one}/{name}" for one in spaces)
        raise InputError(f"vocabulary {name!r}: {len(spaces)} spaces have one of this name. Choose {listed}")
    return read_vocabulary(lake, name, space=default if default in spaces else spaces[0] if spaces else None)


def list_vocabularies(lake: Lake) -> pl.DataFrame:
    """Return one row per vocabulary: its size, its figures, and the number of clips with tokens in it."""
    rows = []
    for space in lake.spaces.all():
        for name in vocabulary_names(lake, space.name):
            one = read_vocabulary(lake, name, space=space.name)
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

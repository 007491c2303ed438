"""Where two sounds agree: the depth of a space's layers at which a hit is nearest to the query, beyond what is usual there.

Cosines of different layers have different ranges, so each is standardised: less the mean cosine of the query to a sample of
clips at that layer, divided by the standard deviation.  Layers near the input represent timbre and pitch, later ones rhythm,
genre and style; which of them do so in a space is measured by `tonelake layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.search.exact import cache_version
from tonelake.index.search.moments import embedded_ids
from tonelake.index.search.query import Query, QueryPart, resolve
from tonelake.index.vectors import unit
from tonelake.store import Lake, Space

SAMPLE = 256                             # clips whose cosines to the query are the usual ones
SEED = 0
THIRDS_FROM = 6                          # layers from which their thirds are named, instead of single layers
THIRDS = ("early layers", "middle layers", "late layers")
SCHEMA = {"clip_id": pl.String, "depth": pl.String, "layer": pl.String, "above": pl.Float32}

_samples: dict[tuple, list[np.ndarray]] = {}         # of the spaces asked last: (sample, dim) of unit length, by layer


def layer_agreement(
    lake: Lake, query: QueryPart | Sequence[QueryPart], hits: Sequence[str], *, space: str | None = None,
    minus: Sequence[QueryPart] = (),
) -> pl.DataFrame:
    """Return where each of `hits`, clip ids, agrees most with a query as of `similar`; no rows in a space of one layer.

    Returns clip_id, depth ("early layers", "middle layers" or "late layers"; in a space of a few layers "layer NAME"), layer
    (the best layer of that depth) and above (how far the cosine is above the usual one, in standard deviations).
    """
    chosen = lake.spaces.get(space)
    if len(chosen.layers) < 2 or not len(hits):
        return pl.DataFrame(schema=SCHEMA)
    numbers = range(len(chosen.layers))
    resolved: Query = resolve(lake, query, chosen, numbers, minus=minus)
    ids = embedded_ids(lake, chosen, pl.Series("clip_id", hits, dtype=pl.String))
    above = np.empty((len(ids), len(numbers)), np.float32)
    for layer, usual in zip(numbers, sampled_layers(lake, chosen), strict=True):
        asked = unit(resolved.vectors[layer][None])[0]
        cosines, own = usual @ asked, unit(lake.vectors(chosen).take(ids.to_list(), layer).vectors) @ asked
        above[:, layer] = (own - cosines.mean()) / max(float(cosines.std()), 1e-6)
    depth = depths(len(numbers))
    mean = np.stack([above[:, depth == part].mean(axis=1) for part in range(depth.max() + 1)], axis=1)       # (hit, depth)
    best = mean.argmax(axis=1)
    layer = np.where(depth[None] == best[:, None], above, -np.inf).argmax(axis=1)
    names = THIRDS if len(numbers) >= THIRDS_FROM else [f"layer {name}" for name in chosen.layers]
    return pl.DataFrame({
        "clip_id": ids, "depth": [names[part] for part in best], "layer": [chosen.layers[number] for number in layer],
        "above": np.take_along_axis(mean, best[:, None], axis=1)[:, 0],
    }, schema=SCHEMA)


def depths(layers: int) -> np.ndarray:
    """(layer,) int: the third of the depth that each layer is in; in a space of a few layers its own number.

    >>> depths(13).tolist(), depths(3).tolist()
    ([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0, 1, 2])
    """
    return np.arange(layers) * len(THIRDS) // layers if layers >= THIRDS_FROM else np.arange(layers)


def sampled_layers(lake: Lake, space: Space) -> list[np.ndarray]:
    """Return (sample, dim) unit vectors of the same clips, drawn with a fixed seed, at every layer; cached."""
    key = cache_version(lake, space)
    if key not in _samples:
        ids = lake.vectors(space).ids()
        rows = np.sort(np.random.default_rng(SEED).choice(len(ids), min(SAMPLE, len(ids)), replace=False))
        chosen = ids.gather(rows).to_list()
        vectors = [unit(lake.vectors(space).take(chosen, layer).vectors) for layer in range(len(space.layers))]
        while len(_samples) >= 4:
            _samples.pop(next(iter(_samples)), None)
        _samples[key] = vectors
    return _samples[key]

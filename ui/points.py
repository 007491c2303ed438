"""Map data for the browser: points shuffled so that every prefix is a random sample, and colours as small integers.

The order depends only on the clip ids.  Maps of several layers of the same clips therefore share it, and points can move
from layer to layer.  Positions, clusters and neighbours come from the stored map; only what drawing needs is computed here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import polars as pl

from tonelake.index import map_stamp, read_map, read_points
from tonelake.store import InputError, KeyRows, Lake, Space, is_list, joined_lists, kind_of

KEPT_MAPS = 8
NAMES = ("title", "artist", "album", "track")
MAX_VALUES = 65_535                      # values with a colour code of their own (uint16); code 0 means no value
MAX_CATEGORY_NUMBERS = 24                # a column with more distinct integers than this is shown as a scale
SHADES = 256                             # colours in a scale

Names = TypeVar("Names", pl.Expr, pl.Series)

_kept: OrderedDict[tuple, Points] = OrderedDict()
_keeping = threading.Lock()


def searchable_names() -> pl.Expr:
    """Expression for the text that a search by name covers: title, artist, album and track in lower case."""
    return pl.concat_str(NAMES, separator="\n", ignore_nulls=True).str.to_lowercase()


def names_contain(names: Names, text: str) -> Names:
    """Whether each clip's names contain a text, ignoring case.  The text is matched literally, never as a pattern or SQL."""
    return names.str.contains(text.strip().lower(), literal=True)


class Points:
    """One map.  A row is the index of a point in the browser's order."""

    def __init__(self, lake: Lake, space: Space, layer: int) -> None:
        """Raises InputError if the layer has no map."""
        self.lake, self.space, self.layer = lake, space, layer
        found = read_points(lake, space, layer, ["clip_id", "projection_x", "projection_y"])
        if found is None:
            read_map(lake, space=space.name, layer=layer)            # raises an error that names the command to run
            raise InputError("map: was removed while the page loaded. Reload the page")
        frame = found[0]
        self._order = frame["clip_id"].hash(0).arg_sort()
        self.ids = frame["clip_id"].gather(self._order)
        self.xy = np.column_stack([frame[f"projection_{axis}"].gather(self._order) for axis in "xy"]).astype(np.float32)
        self.order = blake2b(b"".join(self.ids.hash(1).to_numpy()[:: max(1, len(frame) // 4096)]), digest_size=8).hexdigest()
        self._rows = KeyRows(self.ids)
        self.warm = False                # whether the data that a click needs has been loaded
        self._colours: dict[tuple[str, int], Colours] = {}
        self._named: tuple[int, pl.DataFrame, pl.Series] | None = None       # of a version of the lake's clips

    @property
    def frame(self) -> pl.DataFrame:
        """One row a point: clip_id, cluster, title, artist, album, track and start_s; names are those of the lake now."""
        return self._with_names()[1]

    def _with_names(self) -> tuple[int, pl.DataFrame, pl.Series]:
        """(version of the clips, `frame`, text that a search by name covers), read once for each version."""
        version = self.lake.clips.table.version
        if self._named is None or self._named[0] != version:
            found = read_points(self.lake, self.space, self.layer, ["clip_id", "cluster", *NAMES, "start_s"])
            if found is None:
                raise InputError("map: was removed while the page was open. Reload the page")
            frame = found[0][self._order]
            self._named = version, frame, frame.select(searchable_names())[:, 0]
        return self._named

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """Clusters, each with number, clips, position (x, y) and its most informative labels."""
        return read_map(self.lake, space=self.space.name, layer=self.layer).clusters.to_dicts()

    def search(self, text: str) -> np.ndarray:
        """Return (found,) uint32 rows whose title, artist, album or track contains a text."""
        return names_contain(self._with_names()[2], text).arg_true().to_numpy().astype(np.uint32)

    def rows_of(self, clip_ids: Sequence[str]) -> list[int | None]:
        """Return the row of each clip, or None if it is not on the map."""
        return [int(row) if row >= 0 else None for row in self._rows.of(clip_ids)]

    def within_polygon(self, polygon: Sequence[Sequence[float]]) -> pl.Series:
        """Return ids of clips whose points are inside a polygon in map coordinates."""
        from matplotlib.path import Path

        corners = np.asarray(polygon, float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
            return self.ids.head(0)
        near = ((self.xy >= corners.min(axis=0)) & (self.xy <= corners.max(axis=0))).all(axis=1)
        rows = np.flatnonzero(near)
        return self.ids.gather(rows[Path(corners).contains_points(self.xy[rows])])

    def colours(self, column: str) -> Colours:
        """Return colour codes for the values of a clip column, or for clusters."""
        version = self.lake.clips.table.version
        found = self._colours.get((column, version))
        if found is None:
            if column == "cluster":
                values = self.frame["cluster"].replace(-1, None)
            else:
                self.lake.clips.check_column(column)
                clips = self.lake.clips.read(list(dict.fromkeys(["clip_id", column])))
                own = pl.DataFrame({"clip_id": self.ids})
                values = own.join(clips, on="clip_id", how="left", maintain_order="left")[column]
            found = self._colours[column, version] = Colours(column, values)
            for known in list(self._colours):
                if known[1] != version:
                    del self._colours[known]
        return found


class Colours:
    """Colour codes of a column: categories numbered by frequency, decimals by magnitude."""

    def __init__(self, column: str, values: pl.Series) -> None:
        if is_list(values.dtype):
            values = joined_lists(values).replace("", None)
        kind = kind_of(values.dtype)
        several = kind == "decimal" or (kind == "integer" and column != "cluster" and values.n_unique() > MAX_CATEGORY_NUMBERS)
        self.legend: dict[str, Any] = {"column": column, "missing": values.null_count()}
        if several and values.drop_nulls().is_finite().any():
            self.codes = self._scale(values.cast(pl.Float64))
        else:
            self.codes = self._categories(values.cast(pl.String))

    def _categories(self, values: pl.Series) -> np.ndarray:
        counts = values.drop_nulls().value_counts(sort=True)
        counts = counts.sort(["count", counts.columns[0]], descending=[True, False])
        names, sizes = counts[:, 0].to_list(), counts["count"].to_list()
        known = names[:MAX_VALUES]
        self.legend |= {"kind": "categories", "names": known, "counts": sizes[: len(known)], "more": len(names) - len(known)}
        codes = values.replace_strict(known, list(range(1, len(known) + 1)), default=0, return_dtype=pl.UInt16)
        return codes.fill_null(0).to_numpy()

    def _scale(self, values: pl.Series) -> np.ndarray:
        numbers = values.to_numpy()
        finite = np.isfinite(numbers)
        low, high = np.percentile(numbers[finite], [1, 99])          # one outlier must not compress all other values
        share = np.clip((numbers - low) / (high - low or 1), 0, 1)
        codes = np.where(finite, 1 + np.round(np.nan_to_num(share) * (SHADES - 1)), 0)
        self.legend |= {"kind": "scale", "low": float(low), "high": float(high), "missing": int((~finite).sum())}
        return codes.astype(np.uint16)


def load_points(lake: Lake, space: Space, layer: int) -> Points:
    """Return the current stored map of a layer.  Raises InputError if it has none."""
    key = (lake.identity, space.fingerprint, layer, map_stamp(lake, space, layer))
    with _keeping:
        if key not in _kept:
            _kept[key] = Points(lake, space, layer)
            while len(_kept) > KEPT_MAPS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]

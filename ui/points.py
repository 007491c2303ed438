"""A map as the browser gets it: points in an order of which every beginning is a fair sample, colours as small numbers.

The order depends on the ids alone, so maps of other layers of the same clips have the same one, and points can move from
layer to layer.  Nothing is computed here but what drawing needs: positions, clusters and neighbours are the stored map's.
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
from tonelake.store import InputError, KeyRows, Lake, Space

KEPT_MAPS = 8
NAMES = ("title", "artist", "album", "track")
MOST_VALUES = 65_535                     # that a colour's number can tell apart; 0 is for clips without a value
FEW_NUMBERS = 24                         # of different whole numbers; more are shown as a scale
SHADES = 256                             # of a scale

Names = TypeVar("Names", pl.Expr, pl.Series)

_kept: OrderedDict[tuple, Points] = OrderedDict()
_keeping = threading.Lock()


def spelled() -> pl.Expr:
    """What a search by name looks at: a clip's title, artist, album and track in small letters."""
    return pl.concat_str(NAMES, separator="\n", ignore_nulls=True).str.to_lowercase()


def holding(names: Names, text: str) -> Names:
    """Whether each clip's names hold a text, in any case.  What is typed is text: no pattern, and no part of a filter."""
    return names.str.contains(text.strip().lower(), literal=True)


class Points:
    """One map.  Rows are numbers of points in the browser's order."""

    def __init__(self, lake: Lake, space: Space, layer: int) -> None:
        """Raises InputError where the layer has no map."""
        self.lake, self.space, self.layer = lake, space, layer
        found = read_points(lake, space, layer, ["clip_id", "projection_x", "projection_y"])
        if found is None:
            read_map(lake, space=space.name, layer=layer)            # says which command makes one
            raise InputError("the map has gone meanwhile: load the page again")
        frame = found[0]
        self._order = frame["clip_id"].hash(0).arg_sort()
        self.ids = frame["clip_id"].gather(self._order)
        self.xy = np.column_stack([frame[f"projection_{axis}"].gather(self._order) for axis in "xy"]).astype(np.float32)
        self.order = blake2b(b"".join(self.ids.hash(1).to_numpy()[:: max(1, len(frame) // 4096)]), digest_size=8).hexdigest()
        self._places = KeyRows(self.ids)
        self.warm = False                # whether what a click needs has been read
        self._colours: dict[tuple[str, int], Colours] = {}

    @cached_property
    def frame(self) -> pl.DataFrame:
        """clip_id, cluster, and what names a clip: a row a point."""
        found = read_points(self.lake, self.space, self.layer, ["clip_id", "cluster", *NAMES, "start_s"])
        assert found is not None
        return found[0][self._order]

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """Each cluster: its number, clips, place (x, y) and the labels that tell most of it."""
        return read_map(self.lake, space=self.space.name, layer=self.layer).clusters.to_dicts()

    @cached_property
    def _spelled(self) -> pl.Series:
        return self.frame.select(spelled())[:, 0]

    def search(self, text: str) -> np.ndarray:
        """(found,) uint32 rows whose title, artist, album or track holds a text."""
        return holding(self._spelled, text).arg_true().to_numpy().astype(np.uint32)

    def rows_of(self, clip_ids: Sequence[str]) -> list[int | None]:
        """The rows of these clips; None for one that is not on the map."""
        return [int(row) if row >= 0 else None for row in self._places.of(clip_ids)]

    def inside(self, polygon: Sequence[Sequence[float]]) -> pl.Series:
        """Ids of the clips whose points lie within a polygon of the map's own coordinates."""
        from matplotlib.path import Path

        corners = np.asarray(polygon, float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
            return self.ids.head(0)
        near = ((self.xy >= corners.min(axis=0)) & (self.xy <= corners.max(axis=0))).all(axis=1)
        rows = np.flatnonzero(near)
        return self.ids.gather(rows[Path(corners).contains_points(self.xy[rows])])

    def colours(self, column: str) -> Colours:
        """Numbers for the values of a column of clips, or for clusters."""
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
    """Values of a column as numbers: of categories by how common they are, of decimals by how large."""

    def __init__(self, column: str, values: pl.Series) -> None:
        if isinstance(values.dtype, pl.List):
            values = values.cast(pl.List(pl.String)).list.join(", ").replace("", None)
        kind = values.dtype
        several = kind.is_float() or (kind.is_integer() and column != "cluster" and values.n_unique() > FEW_NUMBERS)
        self.legend: dict[str, Any] = {"column": column, "missing": values.null_count()}
        if several and values.drop_nulls().is_finite().any():
            self.codes = self._scale(values.cast(pl.Float64))
        else:
            self.codes = self._categories(values.cast(pl.String))

    def _categories(self, values: pl.Series) -> np.ndarray:
        counts = values.drop_nulls().value_counts(sort=True)
        counts = counts.sort(["count", counts.columns[0]], descending=[True, False])
        names, sizes = counts[:, 0].to_list(), counts["count"].to_list()
        known = names[:MOST_VALUES]
        self.legend |= {"kind": "categories", "names": known, "counts": sizes[: len(known)], "more": len(names) - len(known)}
        codes = values.replace_strict(known, list(range(1, len(known) + 1)), default=0, return_dtype=pl.UInt16)
        return codes.fill_null(0).to_numpy()

    def _scale(self, values: pl.Series) -> np.ndarray:
        numbers = values.to_numpy()
        finite = np.isfinite(numbers)
        low, high = np.percentile(numbers[finite], [1, 99])          # a single wild value must not make all others alike
        share = np.clip((numbers - low) / (high - low or 1), 0, 1)
        codes = np.where(finite, 1 + np.round(np.nan_to_num(share) * (SHADES - 1)), 0)
        self.legend |= {"kind": "scale", "low": float(low), "high": float(high), "missing": int((~finite).sum())}
        return codes.astype(np.uint16)


def load_points(lake: Lake, space: Space, layer: int) -> Points:
    """The map of a layer as it is stored now.  Raises InputError where there is none."""
    key = (lake.uri, space.fingerprint, layer, map_stamp(lake, space, layer))
    with _keeping:
        if key not in _kept:
            _kept[key] = Points(lake, space, layer)
            while len(_kept) > KEPT_MAPS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]

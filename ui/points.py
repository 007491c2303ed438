"""Map data for the browser: points shuffled so that every prefix is a random sample, and colours as small integers.

A point is a clip, or a song, drawn at one of its clips.  The order depends only on the clip ids.  Maps of several layers of one
set of clips therefore share it, and points can move from layer to layer.  Positions, clusters and neighbours come from the
stored map; only what drawing needs is computed here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import polars as pl

from tonelake.index import file_names, find_songs, map_stamp, read_clusters, read_map, read_points, song_rows, value_places
from tonelake.store import InputError, KeyRows, Lake, Space, is_list, joined_lists, kind_of, read_songs

KEPT_MAPS = 8
NAMES = ("title", "artist", "album", "track")
SHOWN = ("clip_id", *NAMES, "source", "start_s", "duration_s")       # columns of clips that lists show
MAX_VALUES = 65_535                      # values with a colour code of their own (uint16); code 0 means no value
MAX_CATEGORY_NUMBERS = 12                # a column with more distinct integers than this is shown as a scale
SHADES = 256                             # colours in a scale
SENT_VALUES = 50                         # values in a legend, the most frequent ones; the others are found by search
FOUND_SONGS, FOUND_ARTISTS = 50, 3       # in one list

Names = TypeVar("Names", pl.Expr, pl.Series)

_kept: OrderedDict[tuple, Points] = OrderedDict()
_keeping = threading.Lock()
_kept_clusters: OrderedDict[tuple, list[dict[str, Any]]] = OrderedDict()
_describing = threading.Lock()


def searchable_names() -> pl.Expr:
    """Expression for the text that a search by name covers: title, artist, album and track in lower case."""
    return pl.concat_str(NAMES, separator="\n", ignore_nulls=True).str.to_lowercase()


def names_contain(names: Names, text: str) -> Names:
    """Whether each clip's names contain a text, ignoring case.  The text is matched literally, never as a pattern or SQL."""
    return names.str.contains(text.strip().lower(), literal=True)


class Points:
    """One map.  A row is the index of a point in the browser's order."""

    def __init__(self, lake: Lake, space: Space, layer: int, *, songs: bool = False) -> None:
        """With `songs`, a point is a song and `ids` are the clips that songs are drawn at.  Raises InputError without a map."""
        self.lake, self.space, self.layer, self.songs = lake, space, layer, songs
        found = read_points(lake, space, layer, ["clip_id", "projection_x", "projection_y", "cluster"])
        if found is None:
            read_map(lake, space=space.name, layer=layer)            # raises an error that names the command to run
            raise InputError("map: was removed while the page loaded. Reload the page")
        frame, keys = found[0], found[0]["clip_id"].hash(0).to_numpy()
        xy = frame.select("projection_x", "projection_y").to_numpy().astype(np.float32)
        self.clips = frame["clip_id"]    # of all points of the map
        if songs:
            self._song = read_songs(lake.clips).of(self.clips)       # (clip,)
            rows = song_rows(xy, self._song)
            # The least hash of a song's clips: unlike the clip that it is drawn at, it is that of every layer.
            by_song = np.argsort(self._song, kind="stable")
            starts = np.searchsorted(self._song[by_song], self._song[rows])
            keys = np.minimum.reduceat(keys[by_song], starts) if len(rows) else keys
        else:
            rows = np.arange(len(frame))
        order = np.argsort(keys, kind="stable")
        chosen = rows[order]
        self.ids, self.xy, self._cluster = self.clips.gather(chosen), xy[chosen], frame["cluster"].gather(chosen)
        self.order = blake2b(keys[order][:: max(1, len(order) // 4096)].tobytes(), digest_size=8).hexdigest()
        self._rows = KeyRows(self.ids)
        self._row_of_song = (self._song[rows], np.argsort(order)) if songs else None
        self.warm = False                # whether the data that a click needs has been loaded
        self._colours: dict[tuple[str, int], Colours] = {}
        self._named: tuple[int, pl.DataFrame, pl.Series] | None = None       # of a version of the lake's clips
        self._reading = threading.Lock()

    @property
    def frame(self) -> pl.DataFrame:
        """One row a point: clip_id, cluster, title, artist, album and track; names are those of the lake now."""
        return self._with_names()[1]

    def _with_names(self) -> tuple[int, pl.DataFrame, pl.Series]:
        """(version of the clips, `frame`, text that a search by name covers), read once for each version."""
        version = self.lake.clips.table.version
        with self._reading:
            if self._named is None or self._named[0] != version:
                frame = pl.DataFrame({"clip_id": self.ids, "cluster": self._cluster}).join(
                    self.lake.clips.read(["clip_id", *NAMES]), on="clip_id", how="left", maintain_order="left"
                )
                self._named = version, frame, frame.select(searchable_names())[:, 0]
            return self._named

    def rows_as_clips(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the clips of these rows for a list: row and SHOWN, with the name of the file in place of its path."""
        found = self.lake.clips.take(self.ids.gather(list(rows)).to_list(), SHOWN)
        place = dict(zip(self.ids.gather(list(rows)), rows, strict=True))
        found = found.with_columns(source=file_names(found["source"]))
        found = found if self.songs else found.with_columns(queue_s="start_s")
        return [{"row": place[clip["clip_id"]]} | clip for clip in found.to_dicts()]

    def places(self) -> list[dict[str, Any]]:
        """Return the names that are written on the map: clusters, then artists; each with kind, name, points, x and y.

        A cluster also has its number and the labels that characterise it, with their shares.
        """
        artists = value_places(self.xy, self.frame["artist"])
        return [*load_clusters(self.lake, self.space, self.layer), *({"kind": "artist"} | row for row in artists.to_dicts())]

    def search(self, text: str) -> np.ndarray:
        """Return (found,) uint32 rows whose title, artist, album or track contains a text."""
        return names_contain(self._with_names()[2], text).arg_true().to_numpy().astype(np.uint32)

    def find(self, text: str, *, misspelt: bool = True) -> dict[str, Any]:
        """Return what a search lists: `songs` by name, perhaps with typing errors, and `artists` whose names contain the text.

        Songs are clips as of `rows_as_clips`, best first; artists have a name and the number of their points.
        """
        if not text.strip():
            return {"songs": [], "artists": []}
        frame = self.frame
        near = self.rows_of(find_songs(self.lake, text, k=FOUND_SONGS)["clip_id"]) if misspelt else []
        rows = list(dict.fromkeys([*(row for row in near if row is not None), *self.search(text).tolist()]))
        first = frame[rows[: 20 * FOUND_SONGS]].with_row_index("place").unique(NAMES, keep="first", maintain_order=True)
        named = frame["artist"].drop_nulls()
        artists = named.filter(names_contain(named.str.to_lowercase(), text)).value_counts(sort=True, name="points")
        return {
            "songs": self.rows_as_clips([rows[place] for place in first["place"].head(FOUND_SONGS)]),
            "artists": artists.head(FOUND_ARTISTS).rename({"artist": "name"}).to_dicts(),
        }

    def rows_of(self, clip_ids: Sequence[str] | pl.Series) -> list[int | None]:
        """Return the row of each clip, or of its song; None if it is not on the map."""
        rows = self._rows.of(clip_ids)
        if self._row_of_song is not None and len(self.ids):
            songs, row_of = self._row_of_song
            wanted = read_songs(self.lake.clips).of(clip_ids)
            at = np.minimum(np.searchsorted(songs, wanted), len(songs) - 1)
            rows = np.where((wanted >= 0) & (songs[at] == wanted), row_of[at], rows)
        return [int(row) if row >= 0 else None for row in rows]

    def within_polygon(self, polygon: Sequence[Sequence[float]]) -> pl.Series:
        """Return ids of clips whose points are inside a polygon in map coordinates; with songs, all clips of these songs."""
        from matplotlib.path import Path

        corners = np.asarray(polygon, float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
            return self.ids.head(0)
        near = ((self.xy >= corners.min(axis=0)) & (self.xy <= corners.max(axis=0))).all(axis=1)
        rows = np.flatnonzero(near)
        rows = rows[Path(corners).contains_points(self.xy[rows])]
        if not self.songs:
            return self.ids.gather(rows)
        chosen = np.zeros(len(self.clips), bool)
        chosen[KeyRows(self.clips).of(self.ids.gather(rows))] = True
        return self.clips.filter(pl.Series(np.isin(self._song, self._song[chosen])))

    def colours(self, column: str) -> Colours:
        """Return colour codes for the values of a clip column, or for clusters."""
        version = self.lake.clips.table.version
        found = self._colours.get((column, version))
        if found is None:
            if column == "cluster":
                values = self._cluster.replace(-1, None)
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
        self.names, self.counts = pl.Series("names", [], pl.String), pl.Series("counts", [], pl.UInt32)
        self.legend: dict[str, Any] = {"column": column, "missing": values.null_count()}
        if several and values.drop_nulls().is_finite().any():
            self.codes = self._scale(values.cast(pl.Float64))
            self.legend["whole"] = kind == "integer"
        else:
            self.codes = self._categories(values.cast(pl.String))

    def find(self, text: str) -> list[dict[str, Any]]:
        """Return the values that contain a text, the most frequent first: code, name and count."""
        found = names_contain(self.names.str.to_lowercase(), text).arg_true().head(SENT_VALUES)
        return [{"code": code + 1, "name": self.names[code], "count": self.counts[code]} for code in found.to_list()]

    def _categories(self, values: pl.Series) -> np.ndarray:
        counts = values.drop_nulls().value_counts(sort=True)
        counts = counts.sort(["count", counts.columns[0]], descending=[True, False])
        self.names, self.counts = counts[:, 0].head(MAX_VALUES), counts["count"].head(MAX_VALUES)
        known = self.names.to_list()
        self.legend |= {
            "kind": "categories", "names": known[:SENT_VALUES], "counts": self.counts.head(SENT_VALUES).to_list(),
            "codes": len(known), "values": len(counts), "points": int(counts["count"].sum()),
        }
        codes = values.replace_strict(known, list(range(1, len(known) + 1)), default=0, return_dtype=pl.UInt16)
        return codes.fill_null(0).to_numpy()

    def _scale(self, values: pl.Series) -> np.ndarray:
        numbers = values.to_numpy()
        finite = np.isfinite(numbers)
        low, high = np.percentile(numbers[finite], [1, 99])          # one outlier must not compress all other values
        share = np.clip((numbers - low) / (high - low or 1), 0, 1)
        codes = np.where(finite, 1 + np.round(np.nan_to_num(share) * (SHADES - 1)), 0)
        self.legend |= {
            "kind": "scale", "low": float(low), "high": float(high), "missing": int((~finite).sum()), "codes": SHADES,
        }
        return codes.astype(np.uint16)


def load_points(lake: Lake, space: Space, layer: int, *, songs: bool = False) -> Points:
    """Return the current stored map of a layer, with a point for each clip or each song.  Raises InputError if it has none."""
    version = lake.clips.table.version if songs else None            # a label or a confirmed duplicate can join songs
    key = (lake.identity, space.fingerprint, layer, map_stamp(lake, space, layer), version)
    with _keeping:
        if key not in _kept:
            _kept[key] = Points(lake, space, layer, songs=songs)
            while len(_kept) > KEPT_MAPS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def load_clusters(lake: Lake, space: Space, layer: int) -> list[dict[str, Any]]:
    """Return the clusters of a layer's map as places, described by the labels that the lake has now."""
    key = (lake.identity, space.fingerprint, layer, map_stamp(lake, space, layer), lake.clips.table.version)
    with _describing:                    # seconds for a million clips: once, not once a visitor
        if key not in _kept_clusters:
            rows = read_clusters(lake, space, layer).to_dicts()
            _kept_clusters[key] = [{"kind": "cluster", "points": row.pop("clips")} | row for row in rows]
            while len(_kept_clusters) > KEPT_MAPS:
                _kept_clusters.popitem(last=False)
        return _kept_clusters[key]

"""Points of songs: (clip, 2) points and the song of each clip -> one clip for each song, which the song is drawn at.

A song is drawn at its clip nearest to the mean of its clips' points, so that every point is a sound which can be played, and a
song whose clips are far apart is not drawn between them, where it may have no clip.
"""

from __future__ import annotations

import numpy as np
import polars as pl

SCATTERED = 0.5                          # of the median distance of all points from their centre


def song_rows(points: np.ndarray, songs: np.ndarray) -> np.ndarray:
    """Return (song,) rows: of each song, the clip nearest to the mean of its points, in ascending order of `songs`.

    Shapes: `points` (clip, 2), `songs` (clip,) integers.  Of equally near clips, the first.

    >>> song_rows(np.array([[0, 0], [1, 0], [9, 0], [5, 5]]), np.array([7, 7, 7, 2]))
    array([3, 1])
    """
    numbers, song = np.unique(songs, return_inverse=True)
    counts = np.bincount(song, minlength=len(numbers))
    means = np.column_stack([np.bincount(song, points[:, axis], len(numbers)) / np.maximum(counts, 1) for axis in (0, 1)])
    away = ((points - means[song]) ** 2).sum(axis=1)
    order = np.lexsort((away, song))
    return order[np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)] if len(numbers) else order


def value_places(points: np.ndarray, values: pl.Series, *, least: int = 3, most: int = 2_000) -> pl.DataFrame:
    """Return where to write the values of a text column: columns name, points (how many), x and y, the most frequent first.

    A value is written at the median of its points.  Values with fewer than `least` points are left out, and those whose points
    are scattered: a name at their median would be among the points of others.
    """
    frame = pl.DataFrame({"name": values, "x": points[:, 0], "y": points[:, 1]}).drop_nulls("name")
    middle = frame.group_by("name").agg(pl.len().alias("points"), pl.median("x"), pl.median("y"))
    middle = middle.filter(pl.col("points") >= least)
    away = frame.join(middle, on="name").with_columns(
        away=((pl.col("x") - pl.col("x_right")) ** 2 + (pl.col("y") - pl.col("y_right")) ** 2).sqrt()
    )
    spread = away.group_by("name").agg(pl.median("away"))
    centre = np.median(points, axis=0) if len(points) else np.zeros(2)
    overall = float(np.median(np.linalg.norm(points - centre, axis=1))) if len(points) else 0.0
    near = middle.join(spread, on="name").filter(pl.col("away") <= SCATTERED * overall)
    return near.sort(["points", "name"], descending=[True, False]).head(most).select("name", "points", "x", "y")

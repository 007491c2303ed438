"""Count what a lake holds, and suggest the next command."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tonelake.embed import source_of
from tonelake.store import Lake, read_songs

OUTDATED = pl.col("run").fill_null("").str.contains(r" \((replaced|missing)\)$")         # of `list_spaces`


@dataclass(frozen=True)
class Status:
    """Counts of a lake, and its spaces."""

    uri: str
    clips: int
    tracks: int
    hours: float
    flagged: int
    failures: int
    events: int
    labels: tuple[str, ...]
    spaces: pl.DataFrame                 # of `list_spaces`

    def next_step(self) -> str:
        """The command to run next."""
        if not self.clips:
            return "tonelake ingest folder PATH"
        if not len(self.spaces):
            return "tonelake embed"
        behind = self.behind()
        if len(behind):
            return f"tonelake embed --space {behind['name'][0]}"
        return "tonelake similar CLIP, tonelake layers COLUMN, or tonelake ui"

    def behind(self) -> pl.DataFrame:
        """The spaces that lack clips and can be extended: the encoder of a replaced or missing run is not there any more."""
        return self.spaces.filter((pl.col("missing") > 0) & ~OUTDATED)


def read_status(lake: Lake) -> Status:
    """Count what the lake holds; `next_step()` of the result suggests a command."""
    clips = lake.clips.read(["duration_s", "flag"])
    return Status(
        uri=lake.uri, clips=len(clips), tracks=read_songs(lake.clips).count(), hours=float(clips["duration_s"].sum()) / 3600,
        flagged=len(clips) - clips["flag"].null_count(), failures=lake.failures.count(), events=lake.events.count(),
        labels=tuple(lake.clips.label_columns()), spaces=list_spaces(lake),
    )


def list_spaces(lake: Lake) -> pl.DataFrame:
    """One row a space: name, default, encoder, run, layers, dim, window_s, hop_s, precision, embedded, missing, fingerprint.

    `run`: the fine-tuning whose adapter the space was embedded with; `(replaced)` follows if another one has its name now,
    `(missing)` if it was deleted.
    """
    rows = []
    spaces, clips = lake.spaces.all(), lake.clips.count()
    default = lake.spaces.default(spaces)[0].name if spaces else None
    for space in spaces:
        missing = lake.vectors(space).count_missing()
        rows.append((
            space.name, space.name == default, space.encoder, source_of(lake, space), len(space.layers), max(space.dims),
            space.window_s, space.hop_s, space.precision, clips - missing, missing, space.fingerprint[:12],
        ))
    schema = {
        "name": pl.String, "default": pl.Boolean, "encoder": pl.String, "run": pl.String, "layers": pl.Int64, "dim": pl.Int64,
        "window_s": pl.Float64, "hop_s": pl.Float64, "precision": pl.String, "embedded": pl.Int64, "missing": pl.Int64,
        "fingerprint": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")

"""A lake as its owner sees it: every song with its state, files that are copies of others, and failures with remedies.

`songs_table` has one row a song, one a superseded recording, and one a file that could not be ingested.  A song's state is the
worst that holds for it: failed, missing (its file was gone at the last sync), superseded, else present.  Lengths are as far as
clips reach.  Nothing here reads audio or looks at the disk.
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from tonelake.index import file_titles
from tonelake.store import DUPLICATE_COLUMN, MISSING, SUPERSEDED, Lake, is_list, joined_lists, read_songs

PRESENT, FAILED = "present", "failed"
STATES = (PRESENT, MISSING, SUPERSEDED, FAILED)
SONG_SCHEMA: dict[str, Any] = {
    "clip_id": pl.String, "title": pl.String, "artist": pl.String, "album": pl.String, "length_s": pl.Float64,
    "clips": pl.Int64, "spaces": pl.String, "added": pl.Datetime("us", "UTC"), "state": pl.String, "copies": pl.Int64,
    "source": pl.String, "folded": pl.String,
}
COPY_SCHEMA: dict[str, Any] = {
    "set": pl.Int64, "kind": pl.String, "title": pl.String, "artist": pl.String, "clip_id": pl.String, "file": pl.String,
    "megabytes": pl.Float64,
}
FAILURE_SCHEMA: dict[str, Any] = {
    "time": pl.Datetime("us", "UTC"), "stage": pl.String, "title": pl.String, "reason": pl.String, "remedy": pl.String,
    "clip_id": pl.String, "source": pl.String,
}
SAME_AUDIO, CONFIRMED = "same audio", "confirmed duplicate"
MARKS = r"[\u0300-\u036f]"               # accents, once letters are decomposed

# Remedies for problems whose sentence names none, by words of the sentence.
REMEDIES = (
    (r"is empty", "Copy the file again from where it came from"),
    (r"folder named like", "Rename the folder, so that its name does not end like that of an audio file"),
    (r"Permission denied", "Let this user read the file"),
    (r"No such file|cannot be read", "Put the file back, or sync its folder to mark it as missing"),
    (r"truncated|damaged|do not decode|crashed|ends [\d.]+ s before|NaN|holds no audio",
     "Replace the file by an undamaged copy"),
    (r"long, clips need", "Leave the file out: it is too short to be compared"),
    (r"silent throughout", "Replace the file if it should have sound; silence is not compared"),
    (r"claims|not audio that can be read|cannot be decoded|did not decode within", "Convert the file to FLAC, or remove it"),
    (r"cannot be a clip", "Correct the times in the manifest"),
)
OTHERWISE = "Repair or replace the file"
SENTENCE = re.compile(r"(?<=[^.\d])\.\s+(?=[A-Z`])")


def songs_table(lake: Lake) -> pl.DataFrame:
    """Return one row a song, in the order they were added: the columns of SONG_SCHEMA.

    `clip_id`: the song's first clip, null for a file without clips.  `copies`: further present files with its audio, and
    recordings that were confirmed as duplicates of it.  `spaces`: where it is embedded.  `folded`: text to search in.
    """
    clips = _read_clips(lake)
    failures = lake.failures.read()
    songs = _songs(clips, lake)
    failed_clips = failures["clip_id"].drop_nulls().implode()
    failed_files = failures.filter(pl.col("clip_id").is_null())["source"]
    of_failures = clips.filter(pl.col("clip_id").is_in(failed_clips) | pl.col("source").is_in(failed_files.implode()))["song"]
    songs = songs.with_columns(
        state=pl.when(pl.col("song").is_in(of_failures.implode())).then(pl.lit(FAILED)).otherwise("state")
    )
    songs = songs.join(_copies_of_songs(clips, lake), on="song", how="left", maintain_order="left")
    songs = songs.join(_spaces_of_songs(clips, lake), on="song", how="left", maintain_order="left")
    alone = failures.filter(
        pl.col("clip_id").is_null() & ~pl.col("source").is_in(clips["source"].unique().implode())
    ).unique("source", keep="first", maintain_order=True)
    files = pl.DataFrame({
        "title": _title(pl.Series([None] * len(alone), dtype=pl.String), alone["source"]), "added": alone["time"],
        "state": [FAILED] * len(alone), "source": alone["source"],
    }, schema_overrides={"title": pl.String, "source": pl.String, "state": pl.String})
    found = pl.concat([songs.drop("song"), files], how="diagonal_relaxed").with_columns(
        pl.col("clips", "copies").fill_null(0), pl.col("spaces").fill_null("")
    )
    text = pl.concat_str("title", "artist", "album", separator=" ", ignore_nulls=True)
    return found.with_columns(folded=folded(text)).select(pl.col(name).cast(kind) for name, kind in SONG_SCHEMA.items())


def search_songs(songs: pl.DataFrame, words: str = "", state: str | None = None, *, copies: bool = False) -> pl.DataFrame:
    """Return the songs whose title, artist and album contain every word, whatever its case and accents.

    `state`: only songs in this state.  `copies`: only songs with copies.
    """
    wanted = pl.select(folded(pl.lit(words))).item().split()
    tests = [pl.col("folded").str.contains(word, literal=True) for word in wanted]
    tests += [pl.col("state") == state] if state is not None else []
    tests += [pl.col("copies") > 0] if copies else []
    return songs.filter(*tests) if tests else songs


def folded(text: pl.Expr) -> pl.Expr:
    """Lower-case text without accents."""
    return text.str.normalize("NFKD").str.replace_all(MARKS, "").str.to_lowercase()


def copies_table(lake: Lake) -> pl.DataFrame:
    """Return one row a file with the audio of another one, by set, the stored file first: the columns of COPY_SCHEMA.

    A set is the present files of one recording, or the recordings that `tonelake duplicates --save` confirmed as the same.
    """
    clips = _read_clips(lake).filter(pl.col("state") != SUPERSEDED)
    first = clips.group_by("recording", maintain_order=True).agg(
        pl.col("title").drop_nulls().first(), pl.col("artist").drop_nulls().first(), pl.first("clip_id"), pl.first("source"),
        *([pl.col(DUPLICATE_COLUMN).drop_nulls().first()] if DUPLICATE_COLUMN in clips.columns else []),
    ).filter(pl.col("recording").is_not_null())
    files = _present_files(lake).select("recording", "size", file="source")
    several = files.filter(pl.len().over("recording") > 1)
    same = several.join(first, on="recording", how="inner", maintain_order="left").with_columns(
        kind=pl.lit(SAME_AUDIO), key="recording"
    )
    parts = [same]
    if DUPLICATE_COLUMN in first.columns:
        marked = first.filter(pl.col(DUPLICATE_COLUMN).is_not_null())
        marked = marked.filter(pl.len().over(DUPLICATE_COLUMN) > 1)
        sizes = files.group_by("file").agg(pl.first("size"))
        parts.append(marked.with_columns(file="source", kind=pl.lit(CONFIRMED), key=DUPLICATE_COLUMN).join(
            sizes, on="file", how="left", maintain_order="left"
        ))
    found = pl.concat(parts, how="diagonal_relaxed")
    found = found.with_columns(
        title=_title(found["title"], found["file"]), megabytes=pl.col("size") / 1e6,
        set=pl.struct("kind", "key").rank("dense"), stored=pl.col("file") == pl.col("source"),
    ).sort("set", "stored", "file", descending=[False, True, False])
    return found.select(pl.col(name).cast(kind) for name, kind in COPY_SCHEMA.items())


def failures_table(lake: Lake) -> pl.DataFrame:
    """Return the failures, newest first, each with its reason and what to do: the columns of FAILURE_SCHEMA."""
    failures = lake.failures.read()
    titles = lake.clips.take(failures["clip_id"].drop_nulls().unique().to_list(), ["title"])
    found = failures.join(titles, on="clip_id", how="left", maintain_order="left")
    split = [split_remedy(error) for error in found["error"]]
    return found.with_columns(
        title=_title(found["title"], found["source"]), reason=pl.Series([reason for reason, _ in split], dtype=pl.String),
        remedy=pl.Series([remedy for _, remedy in split], dtype=pl.String),
    ).select(pl.col(name).cast(kind) for name, kind in FAILURE_SCHEMA.items())


def split_remedy(error: str) -> tuple[str, str]:
    """Return the problem and the remedy of an error; one that names no remedy gets that of its kind.

    >>> split_remedy("a.wav: has changed since it was ingested. Ingest it again")
    ('a.wav: has changed since it was ingested', 'Ingest it again')
    >>> split_remedy("b.mp3: is empty (0 bytes)")
    ('b.mp3: is empty (0 bytes)', 'Copy the file again from where it came from')
    """
    parts = SENTENCE.split(error.strip().rstrip("."))
    if len(parts) > 1:
        return ". ".join(parts[:-1]), parts[-1]
    return parts[0], next((remedy for pattern, remedy in REMEDIES if re.search(pattern, error)), OTHERWISE)


def _read_clips(lake: Lake) -> pl.DataFrame:
    """Every clip, superseded ones too, from each song's start, with `song`, its number, and `state`, which is never null."""
    present = lake.clips.columns()
    wanted = ["clip_id", "track", "recording", "source", "start_s", "duration_s", "title", "artist", "album", "state", "flag",
              "added_at", *(name for name in ("artists", DUPLICATE_COLUMN) if name in present)]
    clips = lake.clips.read(wanted, superseded=True)
    songs = pl.Series("song", read_songs(lake.clips).of(clips["clip_id"]))
    if not lake.clips.has_states:
        clips = clips.with_columns(state=pl.when(pl.col("flag") == SUPERSEDED).then(pl.lit(SUPERSEDED)))
    if "artists" in present and is_list(clips["artists"].dtype):
        several = joined_lists(clips["artists"], ", ")
        clips = clips.with_columns(artist=pl.when(pl.col("artists").list.len() > 1).then(several).otherwise("artist"))
    old = -1 - pl.coalesce("recording", "source").rank("dense").cast(pl.Int64)        # one row a superseded recording
    return clips.with_columns(
        song=pl.when(pl.col("state") == SUPERSEDED).then(old).otherwise(songs), state=pl.col("state").fill_null(PRESENT),
    ).sort("start_s", "clip_id", maintain_order=True)


def _songs(clips: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """One row a song, in the order in which they were added; present if one of its clips is."""
    live = (pl.col("state") == PRESENT).any()
    songs = clips.group_by("song", maintain_order=True).agg(
        pl.first("clip_id"), *(pl.col(name).drop_nulls().first() for name in ("title", "artist", "album")),
        (pl.col("start_s") + pl.col("duration_s")).max().alias("length_s"), pl.len().alias("clips"),
        pl.col("added_at").min().alias("added"), pl.first("source"),
        pl.when(live).then(pl.lit(PRESENT)).otherwise(pl.first("state")).alias("state"),
    )
    return songs.with_columns(title=_title(songs["title"], songs["source"])).sort("added", nulls_last=True, maintain_order=True)


def _title(titles: pl.Series, sources: pl.Series) -> pl.Series:
    """The titles, and the names of files without a title, less their suffix."""
    return pl.select(pl.coalesce(titles, file_titles(sources))).to_series()


def _present_files(lake: Lake) -> pl.DataFrame:
    return lake.paths.read(
        ["source", "recording", "size"], where="missing_since IS NULL AND recording IS NOT NULL"
    )


def _copies_of_songs(clips: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """(song, copies): present files beyond one of each recording, and duplicate recordings beyond one of each set."""
    files = _present_files(lake).group_by("recording").len("files")
    live = clips.filter(pl.col("state") != SUPERSEDED)
    found = live.select("song", "recording").unique().join(files, on="recording", how="left").group_by("song").agg(
        copies=(pl.col("files").fill_null(1).cast(pl.Int64) - 1).sum()
    )
    if DUPLICATE_COLUMN not in clips.columns:
        return found
    marked = live.filter(pl.col(DUPLICATE_COLUMN).is_not_null()).group_by("song").agg(
        more=pl.col("recording").n_unique().cast(pl.Int64) - pl.col(DUPLICATE_COLUMN).n_unique().cast(pl.Int64)
    )
    return found.join(marked, on="song", how="left").select(
        "song", copies=pl.col("copies") + pl.col("more").fill_null(0).clip(lower_bound=0)
    )


def _spaces_of_songs(clips: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """(song, spaces): names of the spaces with vectors of the song, with how many of its clips where some lack one."""
    found = clips.select("song").unique()
    names = []
    for space in lake.spaces.all():
        stored = pl.DataFrame({"clip_id": lake.vectors(space).ids(), "embedded": True})
        counts = clips.select("song", "clip_id").join(stored, on="clip_id", how="left").group_by("song").agg(
            pl.col("embedded").fill_null(False).sum(), pl.len().alias("all")
        )
        counts = counts.select(
            "song",
            pl.when(pl.col("embedded") == pl.col("all")).then(pl.lit(space.name))
            .when(pl.col("embedded") > 0).then(pl.format("{} ({} of {})", pl.lit(space.name), "embedded", "all"))
            .alias(space.name),
        )
        found = found.join(counts, on="song", how="left")
        names.append(space.name)
    text = pl.concat_str(names, separator=", ", ignore_nulls=True) if names else pl.lit("")
    return found.select("song", spaces=text)

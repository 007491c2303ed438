"""Ingest the library of a music server, as a sync: its songs are matched to files of the lake, and the others are brought in.

1. Songs are matched to the files of this disk that the lake has (`matching`), and their ids are stored with them
   (`lake.paths.served`).  Ids that the server does not list any more are removed.
2. A song without a match whose path leads to a file below the music folder is ingested from there.
3. Each other song gets the source `subsonic:SERVER/ID`, is downloaded into a cache with a bound (`cache`), and ingested.  It is
   not downloaded again while the server says the same about it: its stamp is made from the size and the tags there.

A song that has another id and is otherwise unchanged keeps its clips.  Songs that the server lacks now are marked missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from tonelake.ingest.audio_files import SUFFIXES, clean_name
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_stamps import Stamp
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import as_on_disk, is_file_source, is_there, to_path, to_source
from tonelake.ingest.subsonic.cache import drop_song, known_server, move_song, song_path
from tonelake.ingest.subsonic.client import SubsonicServer
from tonelake.ingest.subsonic.fetching import Fetcher
from tonelake.ingest.subsonic.login import Ask
from tonelake.ingest.subsonic.matching import LakeFile, Matches, match_songs
from tonelake.ingest.subsonic.settings import remember_server
from tonelake.ingest.subsonic.songs import ServerSong
from tonelake.ingest.subsonic.sources import SCHEME, served_source
from tonelake.store import STAMP, InputError, Lake, sync_clips

KIND = "subsonic"                        # of the record of ingests
SHOWN = 10                               # songs without a match that notes name
SHOWN_SOURCES = 3                        # files that one of them could be
HASH_BYTES = 7                           # of a stamp: below every time of a file, in nanoseconds, that is trusted
log = logging.getLogger(__name__)


class Server(Protocol):
    """A music server, whatever interface it has."""

    address: str
    is_private: bool                     # nobody on the network reads what is sent to it


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A song of the server without a match in the lake, with the reason."""

    id: str
    name: str
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ServerReport(IngestReport):
    """Counts of songs of a server: `songs` = by_path + by_tags + on_disk + downloaded + kept + failed downloads + unmatched."""

    songs: int = 0
    by_path: int = 0                     # matched to files that the lake had
    by_tags: int = 0
    on_disk: int = 0                     # ingested from the music folder
    downloaded: int = 0
    kept: int = 0                        # downloaded by an earlier ingest, and unchanged
    unmatched: tuple[Unmatched, ...] = field(default=(), repr=False)

    def unmatched_frame(self) -> pl.DataFrame:
        """Songs without a match: id, name, path and reason."""
        schema = dict.fromkeys(Unmatched.__dataclass_fields__, pl.String)
        return pl.DataFrame([asdict(one) for one in self.unmatched], schema=schema)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{count:,} {word}" for count, word in (
                (self.by_path, "matched by path"), (self.by_tags, "matched by title, artist and length"),
                (self.on_disk, "read from the music folder"), (self.downloaded, "downloaded"), (self.kept, "downloaded before"),
                (len(self.unmatched), "not matched"),
            ) if count
        )
        text = f"{self.songs:,} songs of the server: {counts or 'none matched'}"
        return f"{text}\n{super().__str__()}" if self.recordings or self.missing else text


def ingest_subsonic(
    lake: Lake, server: str | SubsonicServer, *, user: str | None = None, music: str | Path | None = None, fetch: bool = True,
    cache_gb: float | None = None, seconds: float | None = 30.0, hop: float | None = None, per_track: int | None = None,
    dataset: str | None = None, insecure: bool = False, ask: Ask | None = None, workers: int | None = None,
) -> ServerReport:
    """Bring the lake in step with the library of a music server that speaks Subsonic, as the module says.

    `server`: its address, or a client for it.  `user`, `insecure`, `ask`: as for `SubsonicServer`; no password is stored.
    `music`: folder of the server's music on this disk; files outside it are never opened.
    `fetch`: download songs that are neither in the lake nor below `music`; False: report them.
    `cache_gb`: bound of the cache in 10^9 bytes, for all servers and from now on; None: as before, at first 10.
    `seconds`, `hop`, `per_track`, `dataset`: as for `ingest_folder`.
    Raises InputError, before anything is written, for unusable arguments or a server without songs; SubsonicError if the server
    cannot be reached, refuses the login, or fails midway, when the songs before are stored.
    """
    cut = Cut(seconds, hop, per_track)
    folder = checked_folder(music)
    if cache_gb is not None and not 0 < cache_gb < 1e6:
        raise InputError(f"--cache-gb {cache_gb:g}: must be above 0. Give the size of the cache in GB, such as 10")
    lake.check_writable()
    with ExitStack() as stack:
        if isinstance(server, str):
            server = stack.enter_context(SubsonicServer(server, user=user, insecure=insecure, ask=ask))
        server.ping()
        songs = list(server.songs())
        if not songs:
            raise InputError(
                f"{server.address}: lists no songs. Wait until the server has scanned its music, and check that {server.user} "
                "may see it; nothing was changed"
            )
        remember_server(
            server.address, server.user, insecure=server.insecure,
            most_bytes=None if cache_gb is None else round(cache_gb * 1e9),
        )
        lake.ingests.record(KIND, server.address, {
            "user": server.user, "music": None if folder is None else str(folder), "fetch": fetch, "seconds": seconds,
            "hop": hop, "per_track": per_track, "dataset": dataset,
        })
        return sync_library(lake, server, songs, folder, cut, fetch=server if fetch else None, dataset=dataset, workers=workers)


def repeat_subsonic(
    lake: Lake, address: str, *, user: str | None = None, music: str | None = None, fetch: bool = True,
    seconds: float | None = 30.0, hop: float | None = None, per_track: int | None = None, dataset: str | None = None,
    workers: int | None = None,
) -> ServerReport:
    """Run a recorded ingest again, with the login that this machine has for the server.

    Raises InputError for a server that was never ingested on this machine: a lake is a file that anybody may have written, and
    must not choose where a login is sent.  `user` is that of the machine too.
    """
    return ingest_subsonic(
        lake, known_server(address), music=music, fetch=fetch, seconds=seconds, hop=hop, per_track=per_track, dataset=dataset,
        workers=workers,
    )


def sync_library(
    lake: Lake, server: Server, songs: Sequence[ServerSong], music: Path | None, cut: Cut, *,
    fetch: SubsonicServer | None = None, absent: str = "is not in the lake, and downloads are off (--no-fetch)",
    dataset: str | None = None, workers: int | None = None,
) -> ServerReport:
    """Bring the lake in step with the songs of a server, as the module says.

    `fetch`: the server, if songs are downloaded from it.  `absent`: the reason given for songs that are not.
    """
    return _LibrarySync(lake, server, songs, music, fetch=fetch, absent=absent).run(cut, dataset, workers)


def checked_folder(music: str | Path | None) -> Path | None:
    """The music folder as an absolute path.  Raises InputError if it is not a folder."""
    if music is None:
        return None
    folder = Path(os.path.abspath(Path(music).expanduser()))         # noqa: PTH100 - keeps links
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder, or cannot be reached. Give the server's music folder with --music")
    return folder


class _LibrarySync:
    """One run of `ingest_subsonic`."""

    def __init__(
        self, lake: Lake, server: Server, songs: Sequence[ServerSong], music: Path | None, *, fetch: SubsonicServer | None,
        absent: str,
    ) -> None:
        self.lake, self.server, self.songs, self.music, self.fetch, self.absent = lake, server, songs, music, fetch, absent
        files = lake.paths.read([
            "source", "recording", "name", *STAMP, "title", "artists", "album", "album_artist", "track_number", "missing_since",
        ])
        is_own = files["source"].str.starts_with(f"{SCHEME}{server.address}/")
        self.own = {row["source"]: row for row in files.filter(is_own).iter_rows(named=True)}        # of earlier ingests
        self.files = [row for row in files.filter(~is_own).iter_rows(named=True) if is_file_source(row["source"])]
        self.recordings: dict[str, Recording] = {}       # by source
        self.song_of: dict[str, ServerSong] = {}         # of sources that are downloaded
        self.ids: dict[str, str] = {}                    # of sources
        self.unmatched: list[Unmatched] = []
        self.counts: Counter[str] = Counter()

    def run(self, cut: Cut, dataset: str | None, workers: int | None) -> ServerReport:
        matches = self.match()
        matched = matches.source_of
        self.ids |= {source: song for song, source in matched.items()}
        self.rename()
        for song in self.songs:
            if song.id not in matched:
                self.place(song, matches.ambiguous.get(song.id))
        gone = [source for source, row in self.own.items() if source not in self.ids and row["missing_since"] is None]
        report = IngestReport()
        fetcher = None if self.fetch is None else Fetcher(self.fetch, self.song_of, workers)
        self.announce()
        self.store_ids()                 # also if a download is interrupted
        try:
            if self.recordings or gone:
                report = ingest_recordings(
                    self.lake, list(self.recordings.values()), cut, dataset=dataset, workers=workers, gone=gone, fetch=fetcher
                )
        finally:
            self.store_ids()
        self.drop_replaced(gone)
        downloaded, failed = (0, 0) if fetcher is None else (fetcher.downloaded, fetcher.failed)
        kept = len(self.song_of) - downloaded - failed + self.counts["kept"]
        return ServerReport(
            **{name: getattr(report, name) for name in IngestReport.__dataclass_fields__ if name != "notes"},
            songs=len(self.songs), by_path=len(matches.by_path), by_tags=len(matches.by_tags), on_disk=self.counts["on disk"],
            downloaded=downloaded, kept=kept, unmatched=tuple(self.unmatched), notes=(*self.notes(), *report.notes),
        )

    def match(self) -> Matches:
        """Match songs to the files that the lake has on this disk."""
        clips = self.lake.clips.read(["recording", "start_s", "duration_s"]).drop_nulls("recording")
        reach = dict(clips.group_by("recording").agg((pl.col("start_s") + pl.col("duration_s")).max()).iter_rows())
        files = [
            LakeFile(
                source=row["source"], path=to_path(row["source"]).as_posix(), recording=row["recording"],
                is_missing=row["missing_since"] is not None, size=row["size"], title=row["title"],
                artists=tuple(row["artists"] or ()) + ((row["album_artist"],) if row["album_artist"] else ()),
                album=row["album"], track_number=row["track_number"], reach_s=reach.get(row["recording"], 0.0),
            )
            for row in sorted(self.files, key=lambda row: (row["missing_since"] is not None, row["source"]))
            if row["recording"] is not None
        ]
        with ExitStack() as stack:
            pools: list[DecoderPool] = []

            def length(source: str) -> float | None:
                """By the file's header, read by a process that is started where it is needed."""
                if not is_there(to_path(source)):
                    return None
                if not pools:
                    pools.append(stack.enter_context(DecoderPool(1)))
                ((_, reply),) = pools[0].map([{"do": "length", "source": source}])
                return None if isinstance(reply, AudioError) else reply["length_s"]

            return match_songs(self.songs, files, length)

    def rename(self) -> None:
        """Give songs that were downloaded before, and have another id now, their new sources."""
        listed = {served_source(self.server.address, song.id) for song in self.songs}
        old: dict[tuple, list[str]] = defaultdict(list)
        for source, row in self.own.items():
            if source not in listed and row["recording"] is not None:
                old[row["name"], *(row[name] for name in STAMP)].append(source)
        new: dict[tuple, list[str]] = defaultdict(list)
        matched = set(self.ids.values())
        for song in self.songs:
            source = served_source(self.server.address, song.id)
            if source not in self.own and song.id not in matched:
                new[track_of(song), *stamp_of_song(song)].append(source)
        pairs = {old[key][0]: sources[0] for key, sources in new.items() if len(sources) == len(old.get(key, ())) == 1}
        if not pairs:
            return
        rows = self.lake.paths.read().filter(pl.col("source").is_in(list(pairs)))
        self.lake.paths.put(rows.with_columns(pl.col("source").replace_strict(pairs), served=pl.lit(None, pl.List(pl.String))))
        self.lake.paths.remove(list(pairs))
        sync_clips(self.lake)
        for before, now in pairs.items():
            move_song(before, now)
            self.own[now] = self.own.pop(before) | {"source": now}

    def place(self, song: ServerSong, could_be: Sequence[str] | None) -> None:
        """Decide where a song without a match is read from; one that is read from nowhere is noted as not matched."""
        source = served_source(self.server.address, song.id)
        known = self.own.get(source)
        path = None if self.music is None else path_below(self.music, song)
        if path is not None:
            here = to_source(path)
            if here in self.ids:
                return self.note(song, f"{path.name} is another song of the server")
            self.counts["on disk"] += 1
            self.ids[here] = song.id
            name = clean_name(path.relative_to(self.music).as_posix()) if self.music is not None else path.name
            self.recordings[here] = Recording(source=here, track=name, named_by_path=True)
            return None
        if could_be and (known is None or known["missing_since"] is not None):
            shown = ", ".join(to_path(one).name for one in could_be[:SHOWN_SOURCES])
            rest = ", …" if len(could_be) > SHOWN_SOURCES else ""
            if len(could_be) == 1:
                return self.note(song, f"could be {shown} of the lake, and so could another song of the server")
            return self.note(song, f"could be {len(could_be)} files of the lake: {shown}{rest}")
        is_kept = known is not None and known["missing_since"] is None and known["recording"] is not None
        if self.fetch is None and not is_kept:
            return self.note(song, self.absent)
        self.ids[source] = song.id
        if self.fetch is None:
            self.counts["kept"] += 1
            return None
        self.song_of[source] = song
        stamp = stamp_of_song(song)
        if known is not None and (is_other_copy(source, song) or tuple(known[name] for name in STAMP) != stamp):
            drop_song(source)
        self.recordings[source] = Recording(
            source=source, track=track_of(song), named_by_path=True, tags=song.tags(), stamp=stamp,
        )
        return None

    def drop_replaced(self, gone: Sequence[str]) -> None:
        """Delete the rows of songs that are read from a file of this disk now: they are not missing."""
        if gone:
            files = self.lake.paths.read(["source", "recording", "missing_since"])
            here = files.filter(pl.col("missing_since").is_null())["recording"].drop_nulls().implode()
            rows = files.filter(pl.col("recording").is_in(here))
            self.lake.paths.remove(sorted(set(gone) & set(rows["source"])))

    def note(self, song: ServerSong, reason: str) -> None:
        self.unmatched.append(Unmatched(id=song.id, name=song.name, path=song.path, reason=reason))

    def announce(self) -> None:
        """Log how much is about to be downloaded."""
        due = [song for source, song in self.song_of.items() if source not in self.own]
        if due:
            size = sum(song.size or 0 for song in due)
            remedy = "" if self.music is not None else "; --music FOLDER reads those that are on this disk from there"
            amount = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
            log.info("downloading %s songs (%s) from %s%s", f"{len(due):,}", amount, self.server.address, remedy)

    def store_ids(self) -> None:
        """Store the ids of all songs whose source is in the table of files, and those of the artists."""
        self.lake.paths.set_served(self.server.address, self.ids)
        self.lake.servers.set_artists(self.server.address, artists_of(self.songs))

    def notes(self) -> Iterator[str]:
        if not self.server.is_private:
            yield (
                f"{self.server.address}: the connection is not encrypted, and what is sent on it lets others log in there. "
                "Use https outside your own network"
            )
        for one in self.unmatched[:SHOWN]:
            yield f"not matched: {one.name}" + (f" ({one.path})" if one.path not in ("", one.name) else "") + f": {one.reason}"
        if len(self.unmatched) > SHOWN:
            yield f"and {len(self.unmatched) - SHOWN:,} more songs are not matched; --json lists all"


def artists_of(songs: Iterable[ServerSong]) -> dict[str, str]:
    """Names of artists by their ids on the server, those of most songs first."""
    counts = Counter(pair for song in songs for pair in song.artist_ids)
    found: dict[str, str] = {}
    for (identity, name), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        found.setdefault(identity, name)
    return found


def stamp_of_song(song: ServerSong) -> Stamp:
    """The stamp of a song, in place of a file's size and times: its size, and a hash of what the server says about it.

    The hash is below any time of a file, so that the stamp is trusted at once.
    """
    about = {name: value for name, value in asdict(song).items() if name not in ("id", "path", "size", "artist_ids")}
    text = json.dumps(about, sort_keys=True).encode()
    return song.size or 0, int.from_bytes(hashlib.blake2b(text, digest_size=HASH_BYTES).digest()), 0


def track_of(song: ServerSong) -> str:
    """The name of a downloaded song's track: its path on the server without the steps that lead nowhere."""
    kept = [part for part in song.path.split("/") if part not in ("", ".", "..")]
    return clean_name("/".join(kept)) or song.name


def is_other_copy(source: str, song: ServerSong) -> bool:
    """Whether the cache has a file of the song with another size than the server's."""
    try:
        return song.size not in (None, song_path(source).stat().st_size)
    except OSError:
        return False


def path_below(music: Path, song: ServerSong) -> Path | None:
    """The audio file below the music folder that a song's path leads to; None if there is none.

    The path is the server's word: it never leads out of the folder.  A server may count it from a folder further up, so its
    first parts are left out one by one, as long as a folder and a name remain and the file has the size that the server states.
    """
    reported = [part for part in song.path.split("/") if part not in ("", ".")]
    if not reported or ".." in reported or Path(reported[-1]).suffix.lower() not in SUFFIXES:
        return None
    if song.path.startswith("/") and Path(song.path).is_relative_to(music):
        reported = list(Path(song.path).relative_to(music).parts)
    for first in range(max(1, len(reported) - 1)):
        path = as_on_disk(music.joinpath(*reported[first:]))
        try:
            stat = path.stat() if path.is_file() else None
        except (OSError, ValueError):
            stat = None
        if stat is not None and (first == 0 or song.size in (None, stat.st_size)):
            return path
    return None

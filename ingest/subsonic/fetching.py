"""Bring songs of a server to this disk while earlier ones are decoded: the `fetch` of `ingest_recordings`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tonelake.ingest.decoder_pool import AHEAD
from tonelake.ingest.errors import AudioError
from tonelake.ingest.subsonic.cache import cached_song, download_song, song_path
from tonelake.ingest.subsonic.client import SongGone, SubsonicError, SubsonicServer
from tonelake.ingest.subsonic.settings import read_settings
from tonelake.ingest.subsonic.songs import ServerSong
from tonelake.store import InputError, cores

AT_ONCE = 4                              # downloads
FAILED_IN_A_ROW = 5                      # songs, after which the server or the disk is taken to be the reason


class Fetcher:
    """Downloads songs of one server into the cache, a few ahead of the decoders."""

    def __init__(self, server: SubsonicServer, songs: Mapping[str, ServerSong], workers: int | None = None) -> None:
        """`songs`: by source; other sources are passed on as they are."""
        self._server, self._songs = server, songs
        self._most_bytes = read_settings().most_bytes
        self._decoding = (workers or cores()) * AHEAD        # files that decoders can be busy with
        self._in_use: deque[Path] = deque(maxlen=self._decoding + 2 * AT_ONCE)
        self._stop = threading.Event()
        self.downloaded = self.failed = 0

    def __call__(self, sources: Sequence[str], fail: Callable[[str, str], None]) -> Iterator[str]:
        """Yield the sources whose files are on this disk, in order, and call `fail` with the reason for each other one.

        Raises SubsonicError if several in a row fail for a reason that will not pass.
        """
        in_a_row = 0
        waiting: deque[tuple[str, Future[bool] | None]] = deque()
        todo = iter(sources)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download") as threads:
            try:
                while True:
                    while len(waiting) < 2 * AT_ONCE and (source := next(todo, None)) is not None:
                        waiting.append((source, threads.submit(self._have, source) if source in self._songs else None))
                    if not waiting:
                        return
                    source, future = waiting.popleft()
                    try:
                        self.downloaded += future is not None and future.result()
                    except (AudioError, SubsonicError, InputError) as error:
                        lasting = isinstance(error, SubsonicError) and not isinstance(error, SongGone)
                        in_a_row = in_a_row + 1 if lasting or isinstance(error.__cause__, OSError) else 0
                        self.failed += 1
                        fail(source, str(error))
                        if in_a_row == FAILED_IN_A_ROW:
                            raise SubsonicError(
                                f"{error}. Stopped after {in_a_row} songs in a row; those before are in the lake. Run it "
                                "again when this is mended"
                            ) from error
                        continue
                    in_a_row = 0
                    yield source
            finally:
                self._stop.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _have(self, source: str) -> bool:
        """Have the file of a song in the cache; returns whether it was downloaded."""
        song = self._songs[source]
        self._in_use.append(song_path(source))
        if song.size is not None and song.size > self._most_bytes:
            raise AudioError(
                f"{song.name}: has {song.size:,} bytes, and the cache holds {self._most_bytes:,}. Give it more with --cache-gb"
            )
        found = cached_song(source)
        if found is not None and song.size in (None, found.stat().st_size):
            return False
        download_song(self._server, source, in_use=lambda: list(self._in_use), stopped=self._stop.is_set)
        return True

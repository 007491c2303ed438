"""A real Subsonic server (supysonic) over a small library that is rendered, in this process or behind a port.

    server = MusicServer(tmp_path)                                  # renders SONGS below tmp_path/music and scans them
    SubsonicServer(server.address, user=USER, password=PASSWORD, transport=server.transport())      # no port, no thread
    with server.running() as address: ...                           # on a free port of the loopback, for other processes

supysonic keeps its database in a module, so a process has one server at a time.  It accepts passwords, but no tokens, and plays
what it scanned: after a change of the files, call `scan`.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sounds import melody, write

USER, PASSWORD = "ada", "love lace"
RATE = 8_000
ADDRESS = "http://localhost:5722"        # of a server without a port: where its transport pretends to be
SONGS: tuple[tuple[str, dict[str, str], float], ...] = (             # path below the folder, tags, seconds; a seed each
    ("Ada Lark/First/01 Love Theme.flac", {"title": "Love Theme", "artist": "Ada Lark", "album": "First"}, 2.2),
    ("Ada Lark/First/02 Love Letters.flac", {"title": "Love Letters", "artist": "Ada Lark", "album": "First"}, 3.6),
    ("Béla/Éjszaka/01 Dal.flac", {"title": "Dal", "artist": "Béla", "album": "Éjszaka"}, 2.7),
    ("雪/夜/月光.ogg", {"title": "月光", "artist": "雪", "album": "夜"}, 2.4),
    ("untagged.wav", {}, 2.9),
)


def render(folder: Path, songs: Sequence[tuple[str, dict[str, str], float]] = SONGS) -> list[Path]:
    """Write songs below a folder; each sounds like no other of `SONGS`, by its path."""
    names = [path for path, _, _ in SONGS]
    files = []
    for path, tags, length_s in songs:
        seed = names.index(path) if path in names else 100 + sum(path.encode())
        files.append(write(folder / path, melody(length_s, seed=seed, rate=RATE), RATE, tags=tags))
    return files


class MusicServer:
    """supysonic with one user, one folder of music, and its files in `home`."""

    def __init__(self, home: Path, songs: Sequence[tuple[str, dict[str, str], float]] = SONGS) -> None:
        from supysonic.config import DefaultConfig
        from supysonic.db import release_database
        from supysonic.managers.folder import FolderManager
        from supysonic.managers.user import UserManager
        from supysonic.web import create_application

        self.home, self.music, self.address = home, home / "music", ADDRESS
        self.music.mkdir(parents=True, exist_ok=True)
        render(self.music, songs)
        config = DefaultConfig()
        config.BASE = config.BASE | {"database_uri": f"sqlite:///{home / 'supysonic.db'}"}
        config.WEBAPP = config.WEBAPP | {"cache_dir": str(home / "cache"), "mount_webui": False, "log_level": "CRITICAL"}
        config.DAEMON = config.DAEMON | {"socket": str(home / "absent.sock")}
        self._release = release_database
        self.app: Any = create_application(config)
        with self._database():
            UserManager.add(USER, PASSWORD, admin=True)
            FolderManager.add("music", str(self.music))
        self.scan()
        self._songs = songs
        shutil.copy(home / "supysonic.db", home / "kept.db")

    def restore(self) -> None:
        """Bring back the music and the database that the server began with, ids included."""
        shutil.rmtree(self.music)
        render(self.music, self._songs)
        shutil.copy(self.home / "kept.db", self.home / "supysonic.db")

    def close(self) -> None:
        """Release the database, so that another server can be made in this process."""
        self._release()

    def scan(self) -> None:
        """Bring the server in step with its files."""
        from supysonic.scanner import Scanner

        with self._database():
            scanner = Scanner(force=True)
            scanner.queue_folder("music")
            scanner.run()                # in this thread

    def forget(self) -> None:
        """Scan everything again, so that all songs get other ids."""
        from supysonic.db import Track

        with self._database():
            for track in Track.select():
                track.delete_instance(recursive=True)
        self.scan()

    def ids(self) -> dict[str, str]:
        """The id of each song by its path below the folder."""
        from supysonic.db import Track

        with self._database():
            return {str(Path(track.path).relative_to(self.music)): str(track.id) for track in Track.select()}

    def artist_ids(self) -> dict[str, str]:
        """The id of each artist by its name."""
        from supysonic.db import Artist

        with self._database():
            return {artist.name: str(artist.id) for artist in Artist.select()}

    def playlists(self) -> dict[str, list[str]]:
        """The titles of the songs of each playlist by its name."""
        from supysonic.db import Playlist

        with self._database():
            return {one.name: [track.title for track in one.get_tracks()] for one in Playlist.select()}

    def transport(self) -> Any:
        """A transport of httpx2 that asks this server without a connection."""
        from httpx2 import WSGITransport

        return WSGITransport(app=self.app)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free port of the loopback while the context is open; yields the address."""
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: Any) -> None:
                pass

        server = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        before, self.address = self.address, f"http://127.0.0.1:{server.server_port}"
        try:
            yield self.address
        finally:
            self.address = before
            server.shutdown()
            thread.join()
            server.server_close()

    @contextmanager
    def _database(self) -> Iterator[None]:
        from supysonic.db import close_connection, open_connection

        opened = open_connection(True)
        try:
            yield
        finally:
            if opened:
                close_connection()

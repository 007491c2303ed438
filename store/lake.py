"""The lake: a directory or object-store URI that holds clips, vectors, spaces and failures, each once.

    lake = Lake("mylake")                                   # or "s3://bucket/mylake"
    lake.clips.read(["artist"], where="album = 'Kid A'")    # polars
    lake.vectors("mert-v1-95m").layer(7).vectors            # (clip, dim) float32
    lake.failures.read()

Every table is plain Lance: LanceDB, DuckDB or polars read it without tonelake.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from tonelake.store.blobs import Blobs, is_local
from tonelake.store.clips import Clips
from tonelake.store.connection import Connection
from tonelake.store.errors import LakeError
from tonelake.store.events import Events
from tonelake.store.failures import Failures
from tonelake.store.files import Files
from tonelake.store.format import FILE as FORMAT_FILE
from tonelake.store.format import FIRST_WITH_STATES, check_format, refusal_to_write, write_format
from tonelake.store.frames import Frames
from tonelake.store.gestures import Gestures
from tonelake.store.ingests import Ingests
from tonelake.store.progress import Progress, silent_progress
from tonelake.store.servers import Servers
from tonelake.store.space import Space, Spaces
from tonelake.store.tokens import Tokens
from tonelake.store.vectors import Vectors

QUOTED = {ord(c): f"%{ord(c):02X}" for c in "%#?"}            # characters that would end the path of a URI
PARTS = (FORMAT_FILE, "clips.lance", "failures.lance", "spaces")      # a folder with one of these is a lake


class Lake:
    """One open lake; created if it does not exist, unless `create` is False.

    Raises LakeError if there is no lake or none can be made, or if its format is newer than this program knows.  A lake of an
    older format can be read, but clips cannot be written until it is upgraded (`store.upgrade`), which needs `older`.
    """

    def __init__(
        self, uri: str | Path, *, create: bool = True, older: bool = False, progress: Progress = silent_progress
    ) -> None:
        self.progress = progress         # wraps the items of every long job
        self.only_reads = False          # for a program that only reads: derived tables are kept in temporary folders
        self.uri = without_file_scheme(str(uri))
        local = is_local(self.uri)
        if local:
            self.uri = str(Path(self.uri).expanduser().absolute())
        if found := set(self.uri) & set("?" if local else "?#"):
            # Lance takes it for the end of the path, and would write to a different lake than the one named.
            raise LakeError(f"lake {self.uri!r}: the path contains {found.pop()!r}. Choose another with --lake")
        # The first request to an object store goes to its files, whose errors name the remedy.
        text = None if local else self.files("").read(FORMAT_FILE)
        if text is None and (check_folder(Path(self.uri), create) if local else self._check_prefix(create)):
            write_format(self.files(""))
        self._connection = Connection(self.uri)
        self.clips = Clips(self._connection)
        self._older = older
        self.paths = Files(self._connection)
        self.read_format(text)
        self.failures = Failures(self._connection)
        self.events = Events(self._connection)
        self.spaces = Spaces(Blobs(f"{self.uri.rstrip('/')}/spaces"), self.files(""))
        self.ingests = Ingests(self.files("ingests"))
        self.servers = Servers(self.files("servers"))
        self._vectors: dict[Space, Vectors] = {}         # opened: later queries need not read their keys again

    def read_format(self, text: str | None = None) -> None:
        """Read `lake.json`, unless its content is given: sets `identity`, and what the format allows.

        Raises LakeError for a format that is not known.
        """
        found, identity = check_format(self.files("").read(FORMAT_FILE) if text is None else text, self.uri)
        self.identity = f"{identity} {self.uri}"         # a lake that is made again at this URI gets another one
        self.clips.has_states = found >= FIRST_WITH_STATES
        self.refusal = "" if self._older else refusal_to_write(self.uri, found)      # why clips cannot be written
        self.clips.table.refusal = self.paths.table.refusal = self.refusal

    def _check_prefix(self, create: bool) -> bool:
        """Whether a new lake has to be made on an object store.  Raises LakeError unless there is one, or may be one."""
        holds_lake = not set(self.files("").folders()).isdisjoint(PARTS)
        if not create and not holds_lake:
            raise LakeError(f"{self.uri}: is not a lake. Make one with `tonelake ingest`, or choose another with --lake")
        return not holds_lake

    def check_writable(self) -> None:
        """Raise LakeError unless clips can be written: call it before any long work."""
        if self.refusal:
            raise LakeError(self.refusal)

    def vectors(self, space: Space | str | None = None) -> Vectors:
        """The vectors of a space, given by name or as a Space; None means the lake's default space."""
        chosen = space if isinstance(space, Space) else self.spaces.get(space)
        if chosen not in self._vectors:
            self._vectors[chosen] = Vectors(self._connection, chosen, self.clips)
        return self._vectors[chosen]

    def frames(self, space: Space | str | None = None) -> Frames:
        """The stored frames of a space, given as for `vectors`."""
        return Frames(self._connection, space if isinstance(space, Space) else self.spaces.get(space))

    def tokens(self, space: Space | str | None = None) -> Tokens:
        """The stored token sequences of a space, given as for `vectors`."""
        return Tokens(self._connection, space if isinstance(space, Space) else self.spaces.get(space))

    def gestures(self, space: Space | str | None = None) -> Gestures:
        """The stored gestures of a space, given as for `vectors`."""
        return Gestures(self._connection, space if isinstance(space, Space) else self.spaces.get(space))

    def files(self, folder: str) -> Blobs:
        """The small files below a folder of the lake, beside its tables: derived files, runs."""
        if not is_local(self.uri):
            folder = folder.translate(QUOTED)
        return Blobs(f"{self.uri.rstrip('/')}/{folder}".rstrip("/"))

    def __repr__(self) -> str:
        return f"Lake({self.uri!r})"


def check_folder(path: Path, create: bool) -> bool:
    """Whether a new lake has to be made at `path`.  Raises LakeError unless the path is a lake or can become one."""
    try:
        if path.exists() and not path.is_dir():
            raise LakeError(f"{path}: is a file, but a lake is a folder. Choose another with --lake")
        # One listing: another process may be making the same lake, and its temporary file does not belong to anything else.
        names = {entry.name for entry in path.iterdir()} if path.exists() else set()
        holds_lake = not names.isdisjoint(PARTS)
        if not create and not holds_lake:
            raise LakeError(f"{path}: is not a lake. Make one with `tonelake ingest`, or choose another with --lake")
        if not holds_lake and any(not fnmatch(name, f".{FORMAT_FILE}.*.tmp") for name in names):
            raise LakeError(f"{path}: holds other files and no lake. Choose an empty or new folder with --lake")
        path.mkdir(parents=True, exist_ok=True)
        return not holds_lake
    except OSError as error:
        raise LakeError(f"{path}: cannot hold a lake ({error.strerror or error}). Choose another with --lake") from error


def without_file_scheme(uri: str) -> str:
    """The path in a `file://` URI; any other text as it is.

    >>> without_file_scheme("file:///music/my%20lake"), without_file_scheme("s3://bucket/lake")
    ('/music/my lake', 's3://bucket/lake')
    """
    if uri[:7].lower() != "file://":
        return uri
    from urllib.request import url2pathname

    return url2pathname(uri[7:])

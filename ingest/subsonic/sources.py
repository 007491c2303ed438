"""Sources of songs that only a music server has: `subsonic:SERVER/ID`.

SERVER is the server's address (`server_address`), ID is the server's id with everything but letters, digits and `-_.~` escaped
as in a URL, so that a source is one line of text and its last slash ends the address.
"""

from __future__ import annotations

import urllib.parse

from tonelake.ingest.errors import AudioError

SCHEME = "subsonic:"


def served_source(server: str, song: str) -> str:
    """The source of a song with this id.

    >>> served_source("http://localhost:4533/music", "a b/c")
    'subsonic:http://localhost:4533/music/a%20b%2Fc'
    """
    return f"{SCHEME}{server}/{urllib.parse.quote(song, safe='')}"


def is_served(source: str) -> bool:
    return source.startswith(SCHEME)


def parse_served(source: str) -> tuple[str, str]:
    """The server's address and the id of a song.  Raises AudioError if `served_source` did not write the source.

    >>> parse_served("subsonic:http://localhost:4533/music/a%20b%2Fc")
    ('http://localhost:4533/music', 'a b/c')
    """
    server, _, quoted = source.removeprefix(SCHEME).rpartition("/")
    try:
        song = urllib.parse.unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        song = ""
    if not song or not server.startswith(("http://", "https://")) or served_source(server, song) != source:
        raise AudioError(f"{source}: is not the source of a song. Run `tonelake ingest subsonic` again")
    return server, song

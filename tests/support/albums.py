"""Two hundred short rendered songs in five folders of albums, tagged as a music library is, and two copies of songs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sounds import melody, write
from tagged import comments, with_flac_comments

RATE, SONGS, SECONDS = 8_000, 40, 4.6
ALBUMS = (                               # album, its artist, and the artist of every fourth song beside it
    ("Déjà Vu", "Zoë Åström", "Björk Ólafs"), ("Harvest Lanterns", "The Paper Kites", "Zoë Åström"),
    ("Under Glass", "Nina Marlowe", "The Paper Kites"), ("Señales", "Los Faroles", "Nina Marlowe"),
    ("Slow Rivers", "Björk Ólafs", "Los Faroles"),
)
FIRST = ("Crimson", "Hollow", "Silver", "Été", "Wandering", "Paper", "Northern", "Velvet")
SECOND = (
    ("Lighthouse", "Orchard", "Telegraph", "Café", "Sparrow"), ("Harbour", "Pavilion", "Kerosene", "Ballad", "Umbrella"),
    ("Meridian", "Carousel", "Thunder", "Quarry", "Jubilee"), ("Corazón", "Mirador", "Espejo", "Lluvia", "Fandango"),
    ("Glacier", "Waltz", "Almanac", "Ferryman", "Nightingale"),
)


@dataclass(frozen=True)
class Tune:
    """One song: its tags and its file."""

    path: Path
    seed: int
    title: str
    artists: tuple[str, ...]
    album: str
    number: int

    def write(self) -> None:
        """Render the song as FLAC, with its tags."""
        write(self.path, melody(SECONDS, seed=self.seed, rate=RATE), RATE)
        self.retag(self.title)

    def retag(self, title: str) -> Tune:
        """Write the file's tags with another title."""
        fields = [("TITLE", title), *(("ARTIST", one) for one in self.artists), ("ALBUM", self.album)]
        fields += [("TRACKNUMBER", str(self.number)), ("DATE", "1999")]
        body = comments([(name, text.encode()) for name, text in fields])
        self.path.write_bytes(with_flac_comments(self.path.read_bytes(), body))
        return replace(self, title=title)

    def moved(self, path: Path) -> Tune:
        path.parent.mkdir(parents=True, exist_ok=True)
        return replace(self, path=self.path.rename(path))


def make_albums(folder: Path) -> list[Tune]:
    """Write the albums below a folder."""
    tunes = []
    for album, (name, artist, guest) in enumerate(ALBUMS):
        for number in range(SONGS):
            title = f"{FIRST[number % 8]} {SECOND[album][number // 8]}"
            artists = (artist, guest) if number % 4 == 3 else (artist,)
            path = folder / name / f"{number + 1:02d} {title}.flac"
            tunes.append(Tune(path, len(tunes) + 1, title, artists, name, number + 1))
            tunes[-1].write()
    return tunes


def copy_exactly(tune: Tune, path: Path) -> None:
    """Copy a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tune.path, path)


def copy_encoded(tune: Tune, path: Path) -> None:
    """Encode a song again, a little louder and with other samples, with the tags of a compilation."""
    tags = {"title": tune.title, "artist": tune.artists[0], "album": path.parent.name}
    write(path, 1.1 * melody(SECONDS, seed=tune.seed, rate=RATE), RATE, tags=tags)

"""A request for a playlist: the songs that it is like, and how its songs are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.index import QueryPart

ORDERS = ("nearest", "walk")
MOST_SONGS = 1_000                       # of a playlist
SHORTEST_PATH = 3                        # songs: two ends, and one between them


@dataclass(frozen=True, kw_only=True)
class PlaylistRequest:
    """A playlist as it is asked for.  A song is a name, the id of a clip, an audio file, or a `tonelake.index.Song`."""

    like: tuple[QueryPart, ...] = ()
    unlike: tuple[QueryPart, ...] = ()   # subtracted
    text: tuple[str, ...] = ()           # words; those with a leading minus are subtracted
    path_to: QueryPart | None = None     # the last song: the others lead to it
    length: int = 25                     # songs, those of `like` and `path_to` included
    per: tuple[str, int] | None = None   # a column, and how many songs may share one of its values
    order: str = "nearest"               # or walk: each song near the one before it; a path keeps its own
    seeds: bool = True                   # the list begins with the songs of `like`, in their order
    where: str | None = None             # SQL over columns of clips, that chosen songs satisfy
    layer: int | str | None = None
    layers: str | None = None            # mixture of layers
    space: str | None = None
    spaces: str | None = None            # mixture of spaces
    hubs: str = "kept"

    def check(self) -> None:
        """Raise InputError for values that do not fit, or that exclude each other."""
        if not (self.like or self.text):
            raise InputError("playlist: nothing that it should be like. Give a song with --like, or words with --text")
        if not 1 <= self.length <= MOST_SONGS:
            raise InputError(f"--length {self.length}: must be 1 to {MOST_SONGS:,}")
        if self.order not in ORDERS:
            raise InputError(f"--order {self.order}: unknown. Choose {' or '.join(ORDERS)}")
        if self.per is not None and self.per[1] < 1:
            raise InputError(f"--per {self.per[0]} {self.per[1]}: must be at least 1")
        if self.path_to is None:
            return
        if len(self.like) != 1 or self.text or self.unlike:
            raise InputError("--path-to: leads from one song to another. Give one --like, and no --text and no --unlike")
        if self.spaces is not None:
            raise InputError("--path-to: leads through one space. Give --space instead of --spaces")
        if self.length < SHORTEST_PATH:
            raise InputError(f"--length {self.length}: a path needs {SHORTEST_PATH} songs at least")

    def search(self) -> dict[str, Any]:
        """The arguments of `index.similar` and `index.path` that choose the space and layers."""
        return {"layer": self.layer, "layers": self.layers, "space": self.space, "where": self.where}
